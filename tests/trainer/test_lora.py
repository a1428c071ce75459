"""LoRA on two processes: little is trained, little is written, and merged is the same model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig

from llm_trainer.checkpoint.files import read_manifest
from llm_trainer.config import StageConfig, local_path
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import SFT, RunPods, stage_config
from tests.trainer.pods import evaluations, losses

LORA = {"rank": 2, "alpha": 8}
SAMPLE = torch.arange(2, 50)[None]

Adapted = Callable[..., StageConfig]


@pytest.fixture
def adapted(prepared: Path, base: str) -> Adapted:
    """`adapted(stage, zeroStage=3, lora=…)`: an sft stage with an adapter."""

    def make(stage: str, *, nodes: int = 2, attempt: int = 1, model: str = base, **settings: Any) -> StageConfig:
        written = {**SFT, "lora": LORA, "optimizer": {"learningRate": 0.01}, **settings}
        return stage_config(prepared, stage, nodes=nodes, attempt=attempt, model={"uri": model}, sft=written)

    return make


@pytest.mark.parametrize("zero", [3])
def test_adapter_and_merged(adapted: Adapted, pods: RunPods, prepared: Path, base: str, zero: int) -> None:
    apart, together = (
        adapted(f"apart-{zero}", zeroStage=zero),
        adapted(f"together-{zero}", zeroStage=zero, lora={**LORA, "merge": True}),
    )
    adapter, merged = pods(apart).run().result, pods(together).run().result
    assert adapter
    assert merged
    figures = evaluations(apart)
    assert figures[max(figures)]["loss"] < figures[0]["loss"]
    assert (adapter.kind, adapter.base, merged.kind) == ("adapter", base, "model")
    folder, base_folder = (Path(local_path(uri, str(prepared))) for uri in (adapter.uri, base))
    assert adapter.base_digest == read_manifest(folder).base_digest == read_manifest(base_folder).digest()
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), folder)
    whole = AutoModelForCausalLM.from_pretrained(local_path(merged.uri, str(prepared)))
    with torch.no_grad():
        difference = (beside(input_ids=SAMPLE).logits - whole(input_ids=SAMPLE).logits).abs().max()
    assert difference < 1e-5
    told = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert (folder / told).resolve() == base_folder.resolve(), "a path that is right wherever the claim is mounted"
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    assert ends == GenerationConfig.from_pretrained(local_path(merged.uri, str(prepared))).eos_token_id
    card = (folder / "README.md").read_text()
    assert ModelCard(card).data.__dict__["library_name"] == "peft"
    assert all(part in card for part in (base, "pvc://corpus/chat.jsonl", "held-out loss", '"rank": 2')), card
    assert str(prepared) not in card, "a pod's path"
    trained, everything = tensors_in(folder), sum(p.numel() for p in whole.parameters())
    assert trained < everything / 10, f"{trained} of {everything} parameters are in the adapter"


def tensors_in(folder: Path) -> int:
    """Elements of an adapter's tensors."""
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys()), list(file.keys())  # noqa: SIM118 -- no mapping
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def test_checkpoint_holds_no_base_weights(adapted: Adapted, pods: RunPods) -> None:
    config = adapted("small")
    pods(config).run()
    newest = max((Path(config.stage_folder) / "checkpoints").glob("step-*"))
    states = torch.load(next(newest.rglob("mp_rank_00_model_states.pt")), weights_only=False)
    assert states["module"], "the adapter must be there"
    assert all("lora_" in name for name in states["module"]), list(states["module"])


def test_resumes(adapted: Adapted, pods: RunPods) -> None:
    whole = adapted("lora-whole")
    pods(whole).run()
    first = pods(adapted("lora-stopped")).start()
    first.until_step(7)
    first.pods[0].process.terminate()
    assert [word.exit_code for word in first.wait()] == [ExitCode.PREEMPTED] * 2
    second = adapted("lora-stopped", attempt=2)
    pods(second).run()
    expected, made = losses(whole), losses(second)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-5


def test_a_stage_from_an_adapter(adapted: Adapted, pods: RunPods, prepared: Path, base: str) -> None:
    """It starts from base and adapter together, and refuses a base that is another by now."""
    adapter = pods(adapted("first", nodes=1)).run().result
    assert adapter
    after = adapted("second", nodes=1, model=adapter.uri, epochs=0.1, lora=None)
    pods(after).run()
    figures = evaluations(adapted("first"))
    assert evaluations(after)[0]["loss"] == pytest.approx(figures[max(figures)]["loss"], abs=1e-4)
    manifest = Path(local_path(base, str(prepared))) / "manifest.json"
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace('"step": 20', '"step": 21'))
        words = pods(adapted("third", nodes=1, model=adapter.uri, lora=None)).start().wait()
    finally:
        manifest.write_text(text)
    assert words[0].exit_code == ExitCode.CONFIGURATION, words
    assert "digest" in words[0].message


def test_a_stage_goes_on_with_an_adapter(adapted: Adapted, pods: RunPods, prepared: Path, base: str) -> None:
    """What it publishes belongs to the same base, and holds what both stages have learned, in one adapter."""
    first = pods(adapted("begun", nodes=1, epochs=0.2)).run().result
    assert first
    lora = {"rank": 4, "alpha": 4, "rslora": True}
    apart, whole = (
        pods(adapted(name, nodes=1, model=first.uri, epochs=0.2, lora=settings)).run().result
        for name, settings in (("gone-on", lora), ("gone-on-merged", {**lora, "merge": True}))
    )
    assert apart
    assert whole
    assert (apart.kind, apart.base, apart.base_digest) == ("adapter", first.base, first.base_digest)
    folder = Path(local_path(apart.uri, str(prepared)))
    base_folder = Path(local_path(base, str(prepared)))
    assert LoraConfig.from_pretrained(folder).r == LORA["rank"] + 4
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), folder)
    merged = AutoModelForCausalLM.from_pretrained(local_path(whole.uri, str(prepared)))
    with torch.no_grad():
        difference = (beside(input_ids=SAMPLE).logits - merged(input_ids=SAMPLE).logits).abs().max()
    assert difference < 1e-5
    begun = evaluations(adapted("begun"))
    gone_on = evaluations(adapted("gone-on"))
    assert gone_on[0]["loss"] == pytest.approx(begun[max(begun)]["loss"], abs=1e-4)
    assert gone_on[max(gone_on)]["loss"] < gone_on[0]["loss"]


def test_modules_that_are_not_there(adapted: Adapted, pods: RunPods) -> None:
    words = pods(adapted("wrong-modules", nodes=1, lora={"targetModules": ["q_projection"]})).start().wait()
    assert words[0].exit_code == ExitCode.CONFIGURATION
    assert "q_projection" in words[0].message
    assert "q_proj," in words[0].message
