"""The models and shapes whose speed and memory on a GPU docs/figures.md has; without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_trainer.config import Architecture

VOCABULARY = 32_768


def llama(width: int, layers: int, heads: int, groups: int, inner: int, **more: Any) -> Architecture:
    return Architecture(
        family="llama",
        config={
            "vocab_size": VOCABULARY, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": groups, "intermediate_size": inner, "max_position_embeddings": 32_768, **more,
        },
    )  # fmt: skip


MODELS = {
    "tiny": llama(64, 2, 4, 2, 160),
    "125M": llama(768, 12, 12, 4, 2048, tie_word_embeddings=True),
    "1B": llama(2048, 16, 32, 8, 8192, tie_word_embeddings=True),
    "3B": llama(3072, 28, 24, 8, 8192, tie_word_embeddings=True),
    "mixtral": Architecture(
        family="mixtral",
        config={
            "vocab_size": VOCABULARY, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "num_key_value_heads": 4, "intermediate_size": 2048, "max_position_embeddings": 32_768,
            "num_local_experts": 8, "num_experts_per_tok": 2,
        },
    ),
    "mamba2": Architecture(
        family="mamba2",
        config={
            "vocab_size": VOCABULARY, "hidden_size": 768, "num_hidden_layers": 24, "num_heads": 24, "head_dim": 64,
            "n_groups": 1, "state_size": 128,
        },
    ),
    "mamba": Architecture(
        family="mamba", config={"vocab_size": VOCABULARY, "hidden_size": 768, "num_hidden_layers": 24}
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """``rows``: of a micro-batch; ``accumulation``: micro-batches of a step."""

    model: str
    length: int
    rows: int
    accumulation: int = 2
    steps: int = 12
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        written = "".join(f", {key} {value}" for key, value in self.settings.items())
        return f"{self.model}, {self.rows} × {self.length}{written}"

    @property
    def pretrain(self) -> dict[str, Any]:
        return {
            "sequenceLength": self.length,
            "microBatchSize": self.rows,
            "globalBatchSize": self.rows * self.accumulation,
            "steps": self.steps,
            **self.settings,
        }


CASES = {
    "small": [
        Case("125M", 2048, 8), Case("125M", 2048, 32), Case("125M", 8192, 8),
        *(Case("125M", 2048, 32, settings={"zeroStage": zero}) for zero in (0, 2, 3)),
    ],
    "large": [
        Case("1B", 2048, 8, 4), Case("1B", 4096, 8, 4), Case("1B", 8192, 4, 4), Case("1B", 32_768, 1, 4),
        Case("3B", 4096, 4, 4),
    ],
    "tiny": [Case("tiny", 64, 2, steps=3)],  # that a CPU can run the same code
    "check": [
        Case("125M", 2048, 32), Case("125M", 2048, 32, settings={"compile": True}),
        Case("1B", 4096, 8, 4, 8), Case("mixtral", 2048, 16),
    ],
    "families": [Case("mixtral", 2048, 16), Case("mamba2", 1024, 1, 2, 5), Case("mamba", 256, 4, 1, 5)],
}  # fmt: skip
