"""SFT with rows that share places: the losses of rows that don't, in fewer passes."""

from __future__ import annotations

import json
import math
import pydoc_data.topics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_trainer.config import StageConfig
from llm_trainer.models.language_loss import IGNORED
from llm_trainer.stages.packed_batches import packed
from tests.trainer.conftest import SFT, RunPods, stage_config
from tests.trainer.online import figures
from tests.trainer.pods import losses
from tests.trainer.test_families import FAMILIES
from tests.trainer.tiny import tiny

Sft = Callable[..., StageConfig]
ROWS = 64


@pytest.fixture(scope="module")
def mixed(prepared: Path) -> dict[str, Any]:
    """Rows of 20 to 90 tokens; with longer ones, which are cut."""
    texts = list(pydoc_data.topics.topics.values())
    rows = [
        {
            "messages": [
                {"role": "user", "content": text[:8]},
                {"role": "assistant", "content": text[8 : 20 + 37 * n % 400]},
            ]
        }
        for n, text in enumerate(texts[:ROWS])
    ]
    (prepared / "corpus" / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"uri": "pvc://corpus/mixed.jsonl", "validationFraction": 0.0}


@pytest.fixture
def sft(prepared: Path, base: str) -> Sft:
    def make(stage: str, *, nodes: int = 2, attempt: int = 1, **settings: Any) -> StageConfig:
        model = settings.pop("model", {"uri": base})
        return stage_config(prepared, stage, nodes=nodes, attempt=attempt, model=model, sft={**SFT, **settings})

    return make


WAYS: dict[str, dict[str, Any]] = {
    "one process": {"nodes": 1},
    "two processes": {},
    "ZeRO 3": {"zeroStage": 3},
    "a state that would run on": {"model": {"architecture": {"family": "mamba2", "config": FAMILIES["mamba2"]}}},
    "an adapter": {"lora": {"rank": 4}},
    "all tokens": {"assistantOnlyLoss": False},
    "a loss of the user's": {"lossFunction": "tests.trainer.user_functions:nats"},
    "rows that fill no last step": {"globalBatchSize": 14, "microBatchSize": 7},
    "fewer rows than processes want": {"globalBatchSize": 2, "microBatchSize": 1, "epochs": 0.2},
}


@pytest.mark.parametrize("way", WAYS)
def test_packing_changes_no_loss(way: str, sft: Sft, pods: RunPods, mixed: dict[str, Any]) -> None:
    settings = {"dataset": mixed, "maxLength": 96, "epochs": 1.5, **WAYS[way]}
    name = way.replace(" ", "-").replace("'", "").lower()
    plain, together = sft(f"plain-{name}", packing=False, **settings), sft(f"packed-{name}", **settings)
    unpacked, made = pods(plain).run(), pods(together).run()
    assert len(losses(together)) == len(losses(plain)) > 5
    assert losses(together) == pytest.approx(losses(plain), rel=2e-5)
    assert made.tokens == unpacked.tokens, "padding is none"


@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 4}}], ids=["whole", "an adapter"])
def test_a_loss_without_logits_is_that_of_the_logits(
    lora: dict[str, Any], sft: Sft, pods: RunPods, mixed: dict[str, Any]
) -> None:
    """And what TRL would tell beside it is told: of which the model is sure, and how often it is right."""
    settings = {"dataset": mixed, "maxLength": 96, "epochs": 1, **lora}
    name = "-adapter" if lora else ""
    own = sft(f"loss-own{name}", **settings)
    plain = sft(f"loss-of-logits{name}", lossFunction="tests.trainer.user_functions:nats", **settings)
    pods(own).run()
    pods(plain).run()
    assert losses(own) == pytest.approx(losses(plain), rel=2e-5)
    entropies, right = (list(figures(own, told).values()) for told in ("entropy", "mean_token_accuracy"))
    assert len(entropies) == len(right) == len(losses(own)) > 5
    assert all(0 < entropy < math.log(1024) for entropy in entropies)
    assert all(0 <= share <= 1 for share in right)
    assert max(right) > 0


def test_after_a_kill_it_goes_on_in_the_second_epoch(sft: Sft, pods: RunPods, mixed: dict[str, Any]) -> None:
    settings = {"dataset": mixed, "maxLength": 96, "epochs": 2}
    whole = sft("packed-whole", **settings)
    pods(whole).run()
    first = pods(sft("packed-killed", **settings)).start()
    first.until_step(12)
    first.pods[0].process.terminate()
    first.wait()
    second = sft("packed-killed", attempt=2, **settings)
    pods(second).run()
    assert losses(second) == pytest.approx(losses(whole), rel=1e-5)


def test_an_epoch_has_each_row_once(sft: Sft, pods: RunPods, mixed: dict[str, Any]) -> None:
    """64 rows make five steps of 12 and one of 4, which two processes with micro-batches of 3 share."""
    one = sft("epoch-of-one", dataset=mixed, epochs=1, globalBatchSize=12, microBatchSize=12, nodes=1)
    two = sft("epoch-of-two", dataset=mixed, epochs=1, globalBatchSize=12, microBatchSize=3)
    assert pods(one).run().tokens == pods(two).run().tokens
    assert losses(two) == pytest.approx(losses(one), rel=2e-5)


def test_rows_of_a_batch() -> None:
    rows = [
        [{"input_ids": [5, 6, 7], "labels": [5, IGNORED, 7]}, {"input_ids": [8], "labels": [8]}],
        [{"input_ids": [9, 4], "labels": [9, 4]}],
    ]
    made = packed(rows, padding=0)
    assert made["input_ids"].tolist() == [[5, 6, 7, 8], [9, 4, 0, 0]]
    assert made["labels"].tolist() == [[IGNORED, IGNORED, 7, IGNORED], [IGNORED, 4, IGNORED, IGNORED]]
    assert made["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 0, 1]]


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_moe", "deepseek_v3", "gpt2"])
def test_logits_of_examples_in_a_row_are_those_of_each_alone(family: str) -> None:
    model = tiny(family)
    generator = torch.Generator().manual_seed(0)
    examples = [torch.randint(3, 300, (length,), generator=generator) for length in (5, 17, 3)]
    batch = packed(
        [[{"input_ids": tokens, "labels": tokens} for tokens in row] for row in (examples[:2], examples[2:])], 0
    )
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        alone = [model(input_ids=tokens[None], use_cache=False).logits[0] for tokens in examples]
    for made, expected in zip((logits[0, :5], logits[0, 5:22], logits[1, :3]), alone, strict=True):
        torch.testing.assert_close(made, expected, atol=2e-5, rtol=1e-4)
