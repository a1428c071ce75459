"""Pretraining on two processes: the same losses whatever the ZeRO stage, and a model that others load."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_trainer.config import local_path
from llm_trainer.data.sequences import Sequences
from llm_trainer.protocol import ExitCode
from llm_trainer.stages.continued import sequences_of
from tests.trainer.conftest import MODEL, PRETRAIN, RunPods, Stage, stage_config
from tests.trainer.pods import Pods, evaluations, losses

MUON = {"optimizer": {"type": "muon", "muonLearningRate": 0.02, "learningRate": 0.003}}


def test_zero_stages_agree(pretrain: Stage, pods: RunPods) -> None:
    by_stage = {}
    for zero in (0, 1, 2, 3):
        config = pretrain(f"zero-{zero}", zeroStage=zero)
        pods(config).run()
        by_stage[zero] = losses(config)
    assert sorted(by_stage[0]) == list(range(1, 21))
    for zero in (1, 2, 3):
        apart = {step: abs(loss - by_stage[0][step]) for step, loss in by_stage[zero].items()}
        assert max(apart.values()) < 1e-4, f"ZeRO {zero} and 0 differ: {apart}"


@pytest.fixture(scope="module")
def plain_muon(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses without ZeRO."""
    config = stage_config(prepared, "muon-0", nodes=2, model=MODEL, pretrain={**PRETRAIN, "zeroStage": 0, **MUON})
    Pods(config, tmp_path_factory.mktemp("muon"), warm=True).run()
    found = losses(config)
    assert found[20] < found[1] - 0.5, found
    return found


@pytest.mark.parametrize("zero", [*(pytest.param(zero, marks=pytest.mark.release) for zero in (1, 2)), 3])
def test_muon_learns_alike_with_every_zero_stage(
    pretrain: Stage, pods: RunPods, zero: int, plain_muon: dict[int, float]
) -> None:
    config = pretrain(f"muon-{zero}", zeroStage=zero, **MUON)
    pods(config).run()
    apart = {step: abs(loss - plain_muon[step]) for step, loss in losses(config).items()}
    assert max(apart.values()) < 1e-3, f"ZeRO {zero} and 0 differ: {apart}"


def test_what_a_stage_tells(pretrain: Stage, pods: RunPods) -> None:
    config = pretrain("tells", steps=30, schedule={"type": "wsd", "warmupSteps": 5})
    attempt = pods(config)
    progress = attempt.run()
    assert (progress.step, progress.total_steps, progress.world_size) == (30, 30, 2)
    assert [(worker.rank, worker.node) for worker in progress.workers] == [(0, "node-0"), (1, "node-1")]
    assert progress.tokens == 30 * 8 * 64
    assert progress.checkpoint
    assert progress.checkpoint.step == 30
    figures = evaluations(config)
    assert sorted(figures) == [0, 10, 20, 30]
    assert figures[30]["bitsPerByte"] < figures[10]["bitsPerByte"] < figures[0]["bitsPerByte"]
    assert {"bitsPerByte/even", "bitsPerByte/odd", "bitsPerByte/language/en"} <= set(figures[30])
    # a first guess is uniform over the vocabulary
    assert math.isclose(figures[0]["loss"], math.log(1024), rel_tol=0.05)
    told = (Path(config.run_folder) / "report.md").read_text()
    assert f"## Stage {config.stage}" in told
    assert "held-out bitsPerByte/odd" in told
    assert progress.result
    assert progress.result.digest in told


def test_export_loads_and_says_the_same(pretrain: Stage, pods: RunPods, prepared: Path) -> None:
    config = pretrain("export", zeroStage=3)
    progress = pods(config).run()
    assert progress.result
    assert progress.result.kind == "model"
    folder = local_path(progress.result.uri, str(prepared))
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "The import statement finds a module."
    tokens = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
    with torch.no_grad():
        loss = float(model(tokens, labels=tokens).loss)
    assert loss < math.log(1024) - 0.5, "the exported model knows no more than a fresh one"


def test_two_processes_learn_as_one_does(pretrain: Stage, pods: RunPods) -> None:
    """On two nodes, and on one."""
    alone, apart = pretrain("alone", nodes=1), pretrain("apart", nodes=2)
    together = pretrain("together", nodes=1).model_copy(update={"processes_per_node": 2})
    for config in (alone, apart, together):
        assert pods(config).run().world_size == config.nodes * config.processes_per_node
    for two in (apart, together):
        differences = {step: abs(loss - losses(two)[step]) for step, loss in losses(alone).items()}
        assert max(differences.values()) < 1e-4, differences


def test_tokens_instead_of_steps(pretrain: Stage, pods: RunPods) -> None:
    config = pretrain("tokens", nodes=1, steps=None, tokens=8 * 64 * 3)
    assert pods(config).run().step == 3


@pytest.mark.parametrize("zero", [0, 3])
def test_gradients_that_are_not_finite_end_the_attempt(pretrain: Stage, pods: RunPods, zero: int) -> None:
    """With ZeRO 0 DeepSpeed would clip a list of no gradients, which is an error of its own."""
    optimizer = {"learningRate": 1e30, "gradientClipping": 1.0}
    config = pretrain(f"infinite-{zero}", nodes=1, zeroStage=zero, optimizer=optimizer)
    word = pods(config).start().wait()[0]
    assert word.exit_code == ExitCode.INTERNAL, word
    assert "the gradient was not finite in 10 steps in a row" in word.message, word.message


def test_a_second_stage_goes_on_in_the_corpus(pretrain: Stage, pods: RunPods, prepared: Path) -> None:
    """Its steps are those that the first would have made next; where it begins is kept with its checkpoints."""
    whole = Sequences(Path(pretrain("any").data_folder), 64, 0)
    first = pretrain("corpus-first", nodes=1, steps=3)
    result = pods(first).run().result
    assert result
    second = pretrain("corpus-second", nodes=1, steps=2, model={"uri": result.uri})
    pods(second).run()
    assert second.pretrain
    assert sequences_of(second, second.pretrain).row(0).tokens.tolist() == whole.row(3 * 8).tokens.tolist()
    (state,) = [
        json.loads((folder / "state.json").read_text())
        for folder in (Path(second.stage_folder) / "checkpoints").glob("step-*")
    ]
    assert state["fingerprint"]["firstRow"] == 3 * 8


def test_held_out_figures_whatever_the_batch_and_the_processes(pretrain: Stage, pods: RunPods) -> None:
    one = pretrain("held-out-one", nodes=1, steps=1, microBatchSize=1)
    two = pretrain("held-out-two", nodes=2, steps=1, microBatchSize=4)
    pods(one).run()
    pods(two).run()
    assert evaluations(one)[0] == pytest.approx(evaluations(two)[0], rel=1e-6)
