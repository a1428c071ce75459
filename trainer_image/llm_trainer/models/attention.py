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
from transformers.utils import is_flash_attn_2_available

from llm_trainer.config import StageConfig, settings_of
from llm_trainer.runtime.run import Run

VARLEN = "varlen"  # the name under which transformers knows it
STATE_SPACE_ONLY = ("mamba", "mamba2")
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
    if config.model_type in STATE_SPACE_ONLY:
        why = "the family has no attention"  # and transformers refuses the others
        slow = machine.capability is not None and not machine.mamba_ssm
        return Attention("eager", f"{why}; without mamba-ssm its scan is slow and takes much memory" if slow else why)
    if machine.capability is None:
        return Attention("sdpa", "no CUDA device")
    if machine.capability < (8, 0):
        return Attention("sdpa", f"compute capability {machine.capability[0]}.{machine.capability[1]} is below 8.0")
    if not half:
        return Attention("sdpa", "the flash kernels don't compute in float32")
    size = head_size(config)
    if size % 8 or size > LARGEST_HEAD:
        return Attention("sdpa", f"heads of {size} are no multiple of 8 up to {LARGEST_HEAD}")
    if machine.flash_attn:
        return Attention("flash_attention_2")
    if config.model_type == "deepseek_v3":
        return Attention("sdpa", "no flash-attn, and varlen wants values as wide as the keys")
    if dropout := getattr(config, "attn_pdrop", getattr(config, "attention_dropout", 0.0)):
        return Attention("sdpa", f"no flash-attn, and varlen has no dropout, which is {dropout}")
    return Attention(VARLEN, "no flash-attn")


def head_size(config: PreTrainedConfig) -> int:
    """Of the queries and keys."""
    if config.model_type == "deepseek_v3":
        return int(config.qk_nope_head_dim + config.qk_rope_head_dim)
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


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
    starts[:, 0] = True
    return pad(starts.flatten().nonzero().flatten(), (0, 1), value=rows * length).to(torch.int32)


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

    ends = document_ends(position_ids, rows, length, query.device)
    # Rotary embeddings leave float32 behind where autocast computes the rest in bfloat16.
    queries, keys, values = (states.transpose(1, 2).flatten(0, 1).to(value.dtype) for states in (query, key, value))
    made: Any = varlen_attn(
        queries, keys, values, ends, ends, length, length,
        scale=scaling, window_size=((sliding_window or 0) - 1, 0), enable_gqa=key.shape[1] != heads,
    )  # fmt: skip
    return made.view(rows, length, heads, size), None


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, varlen_mask)
