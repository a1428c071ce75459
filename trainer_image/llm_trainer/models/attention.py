"""Which attention a model computes by, chosen once: FlashAttention, torch's variable-length attention, or SDPA.

All three read packed rows: a document begins where position_ids restart, and sees only itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import is_flash_attn_2_available

from llm_trainer.config import StageConfig, settings_of
from llm_trainer.runtime.run import Run

VARLEN = "varlen"  # the name under which transformers knows it
FLASH = "flash_attention_2"
STATE_SPACE_ONLY = ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm")
FLOAT32_ON_CPU = 256 * 64  # tokens times the size of a head (docs/figures.md)
LARGEST_HEAD = 256  # of the flash kernels, whose heads are multiples of 8


@dataclass(frozen=True)
class Machine:
    """What there is to compute attention by. ``capability``: of the CUDA device; None without one."""

    capability: tuple[int, int] | None
    flash_attn: bool
    mamba_ssm: bool = False

    @classmethod
    def cpu(cls) -> Machine:
        return cls(None, flash_attn=False)

    @classmethod
    def here(cls) -> Machine:
        capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
        return cls(capability, is_flash_attn_2_available(), find_spec("mamba_ssm") is not None)


class Attention(NamedTuple):
    """``implementation``: as transformers names it. ``why``: why it is none of the faster ones; may be empty."""

    implementation: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.implementation}, {self.why}" if self.why else self.implementation


def choose(config: PreTrainedConfig, machine: Machine, *, half: bool) -> Attention:
    """``half``: whether the model computes in bfloat16, as the flash kernels must."""
    family, text = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), PreTrainedModel), config.get_text_config(decoder=True)
    if config.model_type in STATE_SPACE_ONLY:
        why = "the family has no attention"  # and transformers refuses the others
        slow = machine.capability is not None and not machine.mamba_ssm
        return Attention("eager", f"{why}; without mamba-ssm its scan is slow and takes much memory" if slow else why)
    if not family._supports_sdpa:  # such as gpt_oss, whose sinks FlashAttention 2 would pass over
        return Attention("eager", "the family knows no other")
    flash, why = flash_kernels(family, text, machine, half=half)
    if flash:
        return Attention(flash, why)
    if getattr(text, "attn_logit_softcapping", None):
        return Attention("eager", f"{why}; SDPA would pass over the soft cap of the scores")
    return Attention("sdpa", why)


def flash_kernels(
    family: type[PreTrainedModel], text: PreTrainedConfig, machine: Machine, *, half: bool
) -> tuple[str, str]:
    """The flash implementation that can be, if any, and why it is none of the faster ones."""
    if machine.capability is None:
        return "", "no CUDA device"
    if machine.capability < (8, 0):
        return "", f"compute capability {machine.capability[0]}.{machine.capability[1]} is below 8.0"
    if not half:
        return "", "the flash kernels don't compute in float32"
    size = head_size(text)
    if size % 8 or size > LARGEST_HEAD:
        return "", f"heads of {size} are no multiple of 8 up to {LARGEST_HEAD}"
    if machine.flash_attn:
        return (FLASH, "") if family._supports_flash_attn else ("", "the family doesn't take flash-attn")
    if hasattr(text, "qk_nope_head_dim"):
        return "", "no flash-attn, and varlen wants values as wide as the keys"
    if getattr(text, "attn_logit_softcapping", None):
        return "", "no flash-attn, and varlen has no soft cap"
    if dropout := getattr(text, "attn_pdrop", getattr(text, "attention_dropout", 0.0)):
        return "", f"no flash-attn, and varlen has no dropout, which is {dropout}"
    if not family.is_backend_compatible():
        return "", "no flash-attn, and the family takes no kernel of ours"
    return VARLEN, "no flash-attn"


def head_size(config: PreTrainedConfig) -> int:
    """Of the queries and keys; the largest where layers differ."""
    if hasattr(config, "qk_nope_head_dim"):
        return int(config.qk_nope_head_dim + config.qk_rope_head_dim)
    own = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return max(own, int(getattr(config, "global_head_dim", None) or 0))


def attention(config: PreTrainedConfig, *, half: bool = False) -> Attention:
    """The fastest one that this machine has for the model."""
    return choose(config, Machine.here(), half=half)


def computes_in_half(config: StageConfig) -> bool:
    """Whether a stage's models compute in bfloat16 on a GPU; its precision `auto` is that."""
    settings = settings_of(config)
    return config.device == "cuda" and settings is not None and settings.precision != "float32"


def show_attention(run: Run, model: PreTrainedModel) -> None:
    """In the log and in the progress."""
    chosen = str(attention(model.config, half=computes_in_half(run.config)))
    run.board.update(attention=chosen)
    if run.group.is_first:
        print(f"attention: {chosen}", flush=True)


# --- torch's variable-length attention, as transformers calls one --------------------------------------------------


def document_ends(positions: torch.Tensor | None, rows: int, length: int, device: torch.device) -> torch.Tensor:
    """(documents + 1,) int32: where each document begins in the rows laid end to end, and the end of the last.

    ``positions``: (rows or 1, length), restarting with each document; None if each row is one.
    """
    starts = torch.zeros(rows, length, dtype=torch.bool, device=device)
    if positions is not None:
        starts[:, 1:] = positions[:, 1:] != positions[:, :-1] + 1
    starts[:, 0] = True  # no positions, or those of one row for all, say nothing of where a row begins
    return pad(starts.flatten().nonzero().flatten(), (0, 1), value=rows * length).to(torch.int32)


def boundaries(implementation: str, positions: torch.Tensor) -> dict[str, Any]:
    """What a model's forward wants beside `position_ids` (rows, length) to keep documents apart.

    Made once for all layers, as finding them makes a GPU wait. transformers looks at positions only where there is one
    row; with more, its flash-attn would let the documents of a row see each other.
    """
    if implementation not in (VARLEN, FLASH):
        return {}
    rows, length = positions.shape
    ends = document_ends(positions, rows, length, positions.device)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": length, "max_length_k": length}


def varlen_mask(
    q_length: int, kv_length: int, attention_mask: torch.Tensor | None = None, **named: Any
) -> torch.Tensor | None:
    """None where the documents' positions say all: a dense mask of a packed row would cost its square."""
    padded = attention_mask is not None and not bool(attention_mask.all())
    if q_length == kv_length and not padded:
        return None
    mask: torch.Tensor | None = sdpa_mask(
        q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **named
    )
    return mask


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    position_ids: torch.Tensor | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """(rows, length, heads, size) from query (rows, heads, length, size) and key and value with as many heads or fewer.

    While an answer is written, there are padded prompts and one query for many keys: SDPA computes those.
    """
    rows, heads, length, size = query.shape
    if attention_mask is not None or key.shape[2] != length:
        done: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **named
        )
        return done
    from torch.nn.attention.varlen import varlen_attn

    ends = document_ends(position_ids, rows, length, query.device) if cu_seq_lens_q is None else cu_seq_lens_q
    # Rotary embeddings leave float32 behind where autocast computes the rest in bfloat16.
    queries, keys, values = (states.transpose(1, 2).flatten(0, 1).to(value.dtype) for states in (query, key, value))
    made: Any = varlen_attn(
        queries, keys, values, ends, ends, length, length,
        scale=scaling, window_size=((sliding_window or 0) - 1, 0), enable_gqa=key.shape[1] != heads,
    )  # fmt: skip
    return made.view(rows, length, heads, size), None


# --- SDPA, as transformers calls it ---------------------------------------------------------------------------------


def sdpa_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """In float32 where that is faster: backwards torch's kernel for CPUs has a high price for each head in bfloat16.

    With and without gradients alike, so that equal models say equal numbers.
    """
    done: tuple[torch.Tensor, None]
    length, size = query.shape[-2:]
    narrow = value.device.type == "cpu" and value.dtype is torch.bfloat16
    if not (narrow and length == key.shape[-2] and length * size <= FLOAT32_ON_CPU):
        done = sdpa_attention_forward(module, query, key, value, attention_mask, **named)
        return done
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast("cpu", enabled=False):
        made, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **named)
    return made.to(value.dtype), None


AttentionInterface.register("sdpa", sdpa_attention)
AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, varlen_mask)
