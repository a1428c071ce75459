"""Which attention is chosen, and that torch's variable-length one reads packed rows as SDPA does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.attention.varlen
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM, modeling_flash_attention_utils

from llm_trainer.models.attention import FLASH, VARLEN, Machine, boundaries, choose, document_ends
from tests.trainer.tiny import VOCABULARY, tiny

CPU, OLD = Machine(None, flash_attn=False), Machine((7, 5), flash_attn=False)
BARE, WHOLE = Machine((9, 0), flash_attn=False), Machine((9, 0), flash_attn=True)


@pytest.mark.parametrize(
    ("machine", "family", "keys", "half", "said"),
    [
        (WHOLE, "llama", {}, True, "flash_attention_2"),
        (BARE, "llama", {}, True, "varlen, no flash-attn"),
        (CPU, "llama", {}, False, "sdpa, no CUDA device"),
        (OLD, "llama", {}, True, "sdpa, compute capability 7.5 is below 8.0"),
        (WHOLE, "llama", {}, False, "sdpa, the flash kernels don't compute in float32"),
        (WHOLE, "llama", {"head_dim": 20}, True, "sdpa, heads of 20 are no multiple of 8 up to 256"),
        (BARE, "gpt2", {}, True, "sdpa, no flash-attn, and varlen has no dropout, which is 0.1"),
        (BARE, "gpt2", {"attn_pdrop": 0.0}, True, "varlen, no flash-attn"),
        (
            BARE,
            "deepseek_v3",
            {},
            True,
            "sdpa, no flash-attn, and varlen wants values as wide as the keys",
        ),
        (WHOLE, "deepseek_v3", {}, True, "flash_attention_2"),
        (WHOLE, "gpt_oss", {}, True, "eager, the family knows no other"),
        (WHOLE, "gemma2", {}, True, "flash_attention_2"),
        (
            BARE,
            "gemma2",
            {},
            True,
            "eager, no flash-attn, and varlen has no soft cap; SDPA would pass over the soft cap of the scores",
        ),
        (CPU, "gemma2", {}, False, "eager, no CUDA device; SDPA would pass over the soft cap of the scores"),
        (CPU, "mamba2", {}, False, "eager, the family has no attention"),
        (
            WHOLE,
            "mamba2",
            {},
            True,
            "eager, the family has no attention; without mamba-ssm its scan is slow and takes much memory",
        ),
        (Machine((9, 0), flash_attn=True, mamba_ssm=True), "mamba2", {}, True, "eager, the family has no attention"),
    ],
)
def test_the_fastest_that_can_be(machine: Machine, family: str, keys: dict[str, Any], half: bool, said: str) -> None:
    assert str(choose(AutoConfig.for_model(family, **keys), machine, half=half)) == said


def test_documents_begin_where_positions_restart() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
    assert document_ends(positions, 2, 5, torch.device("cpu")).tolist() == [0, 3, 5, 6, 10]
    assert document_ends(None, 2, 5, torch.device("cpu")).tolist() == [0, 5, 10]
    assert document_ends(torch.arange(5)[None], 2, 5, torch.device("cpu")).tolist() == [0, 5, 10]


def plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, *_: Any,
    scale: float, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """What the kernel says that it computes: each document by itself, causally, within its window."""
    parts = []
    for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        queries, keys, values = (states[begin:end].transpose(0, 1)[None] for states in (query, key, value))
        mask = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
        if window_size[0] >= 0:
            mask = mask.triu(-window_size[0])
        done = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        parts.append(done[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("llama", {"num_key_value_heads": 2}),
        ("mixtral", {"num_key_value_heads": 2, "num_local_experts": 2, "sliding_window": 3}),
    ],
)
def test_packed_rows_as_sdpa_reads_them(family: str, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: Any, **named: Any) -> torch.Tensor:
        calls.append(named["window_size"])
        return plain(*arguments, **named)

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", counted)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(family, vocab_size=64, **{**size, **keys} if family != "gpt2" else keys)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(0, 64, (2, 12))
    positions = torch.tensor([[*range(5), *range(7)], [0, *range(11)]])
    with torch.no_grad():
        model.set_attn_implementation("sdpa")
        expected = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        model.set_attn_implementation(VARLEN)
        made = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        assert len(calls) == 2, "once in each layer"
        told = model(input_ids=tokens, position_ids=positions, use_cache=False, **boundaries(VARLEN, positions)).logits
        assert torch.equal(told, made)
        padding = torch.tensor([[0] * 4 + [1] * 8, [1] * 12])
        written = [
            model.generate(tokens, attention_mask=padding, max_new_tokens=4, do_sample=False)
            for implementation in ("sdpa", VARLEN)
            if not model.set_attn_implementation(implementation)
        ]
    assert torch.allclose(made, expected, atol=1e-5), float((made - expected).abs().max())
    assert torch.equal(*written), "padded prompts, and one query for many keys"


FLASH_FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"attn_pdrop": 0.0}),
    ("llama", {}),
    ("mistral", {}),
    ("gemma2", {}),
    ("deepseek_v3", {}),
    ("qwen3_moe", {}),
]


@pytest.mark.parametrize(("family", "keys"), FLASH_FAMILIES)
@torch.no_grad()
def test_flash_attention_is_told_where_documents_begin(
    family: str, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several rows: a plain kernel in flash-attn's place, which sees what it is told by cu_seqlens and nothing else."""
    calls: list[str] = []

    def whole_rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **named: Any) -> torch.Tensor:
        calls.append("whole")
        rows = [
            varlen(q, k, v, cu_seqlens_q=torch.tensor([0, len(q)]), **named)
            for q, k, v in zip(query, key, value, strict=True)
        ]
        return torch.stack(rows)

    def varlen(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seqlens_q: torch.Tensor,
        softmax_scale: float | None = None, window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0, **_: Any,
    ) -> torch.Tensor:  # fmt: skip
        calls.append("varlen")
        parts = []
        for begin, end in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
            queries, keys, values = (states[begin:end].transpose(0, 1) for states in (query, key, value))
            groups = len(queries) // len(keys)
            keys, values = keys.repeat_interleave(groups, 0), values.repeat_interleave(groups, 0)
            scores = queries @ keys.transpose(1, 2) * (softmax_scale or query.shape[-1] ** -0.5)
            scores = softcap * torch.tanh(scores / softcap) if softcap else scores
            mask = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
            mask = mask.triu(-window_size[0]) if window_size[0] >= 0 else mask
            parts.append((scores.masked_fill(~mask, -torch.inf).softmax(-1) @ values).transpose(0, 1))
        return torch.cat(parts)

    def arguments(**named: Any) -> dict[str, Any]:
        window = (named["sliding_window"] - 1, 0) if named.get("sliding_window") else (-1, -1)
        return {"softmax_scale": named["softmax_scale"], "window_size": window, "softcap": named.get("softcap") or 0.0}

    kernels = (whole_rows, varlen, None, None, None)
    monkeypatch.setattr(modeling_flash_attention_utils, "lazy_import_flash_attention", lambda _: (kernels, arguments))
    model = tiny(family, **keys)
    if family == "gpt2":
        model.double()  # in float32 transformers looks for a Linear, and gpt2 has none
    tokens = torch.randint(3, VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[*range(8), *range(12)], [*range(15), *range(5)], [*range(20)]])
    model.set_attn_implementation("eager")
    expected = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
    model.config._attn_implementation = FLASH  # the kernel's package is not here
    made = model(input_ids=tokens, position_ids=positions, use_cache=False, **boundaries(FLASH, positions)).logits
    assert torch.allclose(made, expected, atol=1e-5), float((made - expected).abs().max())
    assert set(calls) == {"varlen"}
    apart = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
    assert not torch.allclose(apart, expected, atol=1e-5), "this test could not fail"
