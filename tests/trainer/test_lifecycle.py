"""What holds for every kind of stage that trains, as one loop owns it: figures, guards, checkpoints, publishing."""

from __future__ import annotations

import json
import math
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from llm_trainer.config import KINDS, StageConfig
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import MODEL, PRETRAIN, SFT, RunPods, stage_config
from tests.trainer.online import ONLINE, PYTHONPATH
from tests.trainer.pods import Pod, evaluations, history, losses
from tests.trainer.task_files import write_tasks

SHARED: dict[str, Any] = {
    "globalBatchSize": 8, "microBatchSize": 2, "precision": "float32", "optimizer": {"learningRate": 1e-3},
    "checkpoint": {"everySteps": 2}, "evaluation": {"everySteps": 1000},
}  # fmt: skip
CASES = Path(__file__).parents[3] / "shared" / "cases" / "data"
TRL_KINDS = [kind for kind in KINDS.values() if kind not in ("pretrain", "ppo")]

Kind = Callable[..., StageConfig]


@pytest.fixture
def any_kind(prepared: Path, base: str, pairs: str, prompts: str) -> Kind:
    """`any_kind(kind, stage, …)`: a stage of some steps in one process."""
    text = (prepared / "corpus" / "pairs.jsonl").read_text()
    marked = [
        {"prompt": row["prompt"], "completion": row[column], "label": column == "chosen"}
        for row in map(json.loads, text.splitlines())
        for column in ("chosen", "rejected")
    ]
    (prepared / "corpus" / "any-kind.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked))
    online = {**ONLINE, **SHARED, "epochs": 1, "dataset": {"uri": prompts, "validationFraction": 0.1}}
    offline = {**SHARED, "maxLength": 64, "epochs": 0.5, "dataset": {"uri": pairs, "validationFraction": 0.1}}
    settings: dict[str, dict[str, Any]] = {
        "pretrain": {**PRETRAIN, **SHARED, "steps": 8},
        "sft": {**SFT, **SHARED, "epochs": 0.5},
        "rewardModel": offline,
        "dpo": offline,
        "kto": {**offline, "dataset": {"uri": "pvc://corpus/any-kind.jsonl", "validationFraction": 0.1}},
        "grpo": {**online, "numGenerations": 4},
        "ppo": online,
    }

    def make(kind: str, stage: str, *, attempt: int = 1, nodes: int = 1, **changed: Any) -> StageConfig:
        model = MODEL if kind == "pretrain" else {"uri": base}
        return stage_config(
            prepared, stage, nodes=nodes, attempt=attempt, model=model, **{kind: {**settings[kind], **changed}}
        )

    return make


def metrics(pod: Pod, *labels: str) -> dict[str, float]:
    """What Prometheus would read now, of those that have these labels beside `stage`; their values follow the name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{pod.progress_port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        "/".join([s.name.removeprefix("llm_trainer_") if labels else s.name, *(s.labels[label] for label in labels)]): (
            s.value
        )
        for family in families for s in family.samples if set(s.labels) == {"stage", *labels}
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values())
def test_what_is_seen_of_a_stage(kind: str, any_kind: Kind, pods: RunPods) -> None:
    """Prometheus, the history and the progress say the same of every kind; no figure stands at 0 for want of a word."""
    long = {"steps": 4000} if kind == "pretrain" else {"epochs": 400}  # it must not end while it is asked
    config = any_kind(kind, f"seen-{kind.lower()}", publishEverySteps=4, **long)
    running = pods(config, PYTHONPATH=PYTHONPATH).start()
    running.until_step(5)
    seen = metrics(running.pods[0])
    phases, memory = metrics(running.pods[0], "phase"), metrics(running.pods[0], "rank")
    parts = metrics(running.pods[0], "rank", "part")
    running.pods[0].process.terminate()
    word = running.wait()[0]
    assert word.exit_code == ExitCode.PREEMPTED, word
    for name in ("loss", "step", "tokens_total", "tokens_per_second", "learning_rate", "gradient_norm"):
        assert seen[f"llm_trainer_{name}"] != 0, (name, seen)
    assert seen["llm_trainer_step_seconds_count"] >= 5
    assert seen["llm_trainer_last_step_timestamp_seconds"] > 1e9
    assert 0 < seen["llm_trainer_goodput"] < 1
    assert 0 <= seen["llm_trainer_heartbeat_age_seconds"] < 300
    assert {"phase_seconds_total/Starting", "phase_seconds_total/Training"} <= phases.keys()
    assert phases["phase_seconds_total/Starting"] > 0
    assert memory["memory_bytes/0"] > 1e8
    wanted = {"data", "agree", "compute"} - ({"data"} if kind == "ppo" else set())
    wanted |= {"generate", "score"} if kind in ("ppo", "grpo") else set()
    assert {f"step_part_seconds_total/0/{part}" for part in wanted} <= parts.keys()
    assert word.progress
    assert word.progress.checkpoint
    assert word.progress.checkpoint.step == word.progress.step
    rows = [row for row in history(config) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, word.progress.step + 1))
    assert {"loss", "learningRate", "gradNorm", "tokensPerSecond", "applied"} <= rows[0].keys()
    assert word.progress.tokens > 0
    assert list((Path(config.stage_folder) / "results").glob("step-*"))


@pytest.mark.parametrize(
    ("kind", "zero"), [("pretrain", 0), ("sft", 0), ("sft", 1), ("sft", 3), ("dpo", 0), ("kto", 0)]
)
def test_steps_that_are_not_finite_are_left_out(kind: str, zero: int, any_kind: Kind, pods: RunPods) -> None:
    """The first update makes weights that overflow in every later step. None of those reaches the weights, and the
    attempt ends before it is published as a success."""
    name = f"lost-{kind}-{zero}"
    config = any_kind(kind, name, zeroStage=zero, optimizer={"learningRate": 1e36}, checkpoint={"everySteps": 1})
    word = pods(config).start().wait()[0]
    assert word.exit_code == ExitCode.INTERNAL, word
    assert "optimizer.learningRate" in word.message
    rows = [row for row in history(config) if "loss" in row]
    assert [row["applied"] for row in rows] == [True] + [False] * (len(rows) - 1)
    assert not (Path(config.stage_folder) / "results").exists()
    newest = max((Path(config.stage_folder) / "checkpoints").glob("step-*"))
    weights = [torch.load(file, weights_only=False)["module"] for file in newest.rglob("*model_states.pt")]
    tensors = [tensor for module in weights for tensor in module.values() if torch.is_tensor(tensor)]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors), "a step that was left out has changed them"


@pytest.mark.parametrize(
    ("kind", "zero"),
    [("pretrain", 3), ("sft", 0),
     *(pytest.param(*case, marks=pytest.mark.release) for case in (("dpo", 1), ("rewardModel", 2), ("kto", 3)))],
)  # fmt: skip
def test_weights_that_blow_up_are_rolled_back(kind: str, zero: int, any_kind: Kind, pods: RunPods) -> None:
    """The fifth update makes weights that are no numbers, and it is saved: the run goes back to before it, whatever is
    kept.
    """
    config = any_kind(
        kind, f"back-{kind.lower()}", nodes=2, zeroStage=zero, lossWatch={"skips": 2},
        checkpoint={"everySteps": 1, "keep": 1}, **({"epochs": 1} if kind == "sft" else {}),
        optimizer={"learningRate": 1e-3, "function": "tests.trainer.user_functions:blows_up"},
    )  # fmt: skip
    running = pods(config, PYTHONPATH=PYTHONPATH)
    progress = running.run()
    assert progress.step == progress.total_steps
    assert math.isfinite(losses(config)[progress.step])
    (row,) = [row for row in history(config) if row.get("action") == "RollBack"]
    assert (row["step"], row["from"], row["jumpedOver"]) == (4, 7, [4, 7])
    logs = [[line for line in pod.log.splitlines() if line.startswith(("Skip", "RollBack"))] for pod in running.pods]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 2


@pytest.mark.parametrize("kind", [pytest.param("grpo", marks=pytest.mark.release), "ppo"])
def test_a_stage_that_writes_answers_is_rolled_back(kind: str, any_kind: Kind, pods: RunPods) -> None:
    """By a watch that takes any loss above the mean for a spike."""
    watch = {"window": 8, "sigma": 0.01, "spikeSteps": 1, "rollbacks": 2}
    config = any_kind(kind, f"back-{kind}", epochs=4, lossWatch=watch)
    word = pods(config, PYTHONPATH=PYTHONPATH).start().wait()[0]
    assert word.reason in ("Succeeded", "Diverged"), word
    rows = [row for row in history(config) if row.get("action") == "RollBack"]
    assert rows
    made = [row["step"] for row in history(config) if "loss" in row]
    assert made == list(range(1, len(made) + 1))
    assert made[-1] > rows[-1]["step"]


def test_a_stage_in_which_nothing_was_learned_fails(
    any_kind: Kind, pods: RunPods, prepared: Path, record_property: Any
) -> None:
    """Every margin is NaN, so no gradient is finite. Data preparation refuses such rows; the loop does by itself."""
    rows = [
        {"prompt": f"p {n}", "chosen": "good", "rejected": "bad", "margin": float("nan")} for n in range(20)
    ]  # as the case margin-nan has them
    (prepared / "corpus" / "margins.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"uri": "pvc://corpus/margins.jsonl", "validationFraction": 0}
    config = any_kind("rewardModel", "margins", dataset=dataset, zeroStage=0, epochs=1)
    word = pods(config).start().wait()[0]
    assert word.exit_code in (ExitCode.CONFIGURATION, ExitCode.DATA), word
    assert "finite" in word.message or "NaN" in word.message
    assert not (Path(config.stage_folder) / "results").exists()


@pytest.mark.parametrize("kind", ["pretrain", "sft", "ppo"])
def test_a_stale_attempt_publishes_nothing(kind: str, any_kind: Kind, pods: RunPods) -> None:
    """Its next checkpoint is far away: what it exports meanwhile would be served."""
    config = any_kind(kind, f"stale-{kind}", checkpoint={"everySteps": 1000}, publishEverySteps=3)
    running = pods(config, PYTHONPATH=PYTHONPATH).start()
    running.until_step(1)
    (Path(config.stage_folder) / "attempt").write_text("2 0")
    word = running.wait()[0]
    assert word.exit_code == ExitCode.STALE, word
    assert not list((Path(config.stage_folder) / "results").glob("step-*"))


@pytest.mark.parametrize("kind", ["pretrain", "rewardModel"])
def test_a_stage_without_a_good_checkpoint_keeps_its_history(kind: str, any_kind: Kind, pods: RunPods) -> None:
    config = any_kind(kind, f"history-{kind.lower()}")
    pods(config).run()
    checkpoints = Path(config.stage_folder) / "checkpoints"
    for folder in checkpoints.glob("step-*"):
        (folder / "state.json").write_text("{}")
    (Path(config.stage_folder) / "record.json").unlink()
    before = (Path(config.stage_folder) / "history.jsonl").read_text()
    again = any_kind(kind, config.stage, attempt=2)
    word = pods(again).start().wait()[0]
    assert word.exit_code == ExitCode.CONFIGURATION, word
    assert "no checkpoint in" in word.message
    assert "state.json" in word.message
    assert (Path(config.stage_folder) / "history.jsonl").read_text() == before
    shutil.rmtree(checkpoints)  # what the message says
    third = any_kind(kind, config.stage, attempt=3)
    pods(third).run()
    assert sorted(losses(third)) == sorted(
        json.loads(line)["step"] for line in before.splitlines() if 'loss"' in line and "applied" in line
    )


@pytest.mark.parametrize("kind", TRL_KINDS)
def test_a_warm_up_as_long_as_the_stage_is_refused(kind: str, any_kind: Kind, pods: RunPods) -> None:
    word = (
        pods(any_kind(kind, f"warm-{kind.lower()}", schedule={"warmupSteps": 500}), PYTHONPATH=PYTHONPATH)
        .start()
        .wait()[0]
    )
    assert word.exit_code == ExitCode.CONFIGURATION, word
    assert "schedule.warmupSteps: 500 leaves none" in word.message


@pytest.mark.parametrize("kind", ["sft", "grpo", "ppo"])
def test_rows_that_changed_are_noticed(kind: str, any_kind: Kind, pods: RunPods, prepared: Path) -> None:
    """A dataset that is another one under the same name would go on in a mixture of two."""
    corpus, name = prepared / "corpus", f"changed-{kind}.jsonl"
    rows = (corpus / ("chat.jsonl" if kind == "sft" else "prompts.jsonl")).read_text().splitlines()
    (corpus / name).write_text("\n".join(rows) + "\n")
    given = {"dataset": {"uri": f"pvc://corpus/{name}", "validationFraction": 0.1}, "epochs": 400}
    first = pods(any_kind(kind, f"changed-{kind}", **given), PYTHONPATH=PYTHONPATH).start()
    first.until_step(2)
    first.pods[0].process.terminate()
    assert first.wait()[0].exit_code == ExitCode.PREEMPTED
    (corpus / name).write_text("\n".join(row.replace("What", "Which") for row in rows) + "\n")
    word = pods(any_kind(kind, f"changed-{kind}", **given, attempt=2), PYTHONPATH=PYTHONPATH).start().wait()[0]
    assert word.exit_code == ExitCode.CONFIGURATION, word
    assert "was made from other data" in word.message


@pytest.mark.parametrize("kind", ["sft", pytest.param("grpo", marks=pytest.mark.release)])
def test_it_goes_on_in_a_later_epoch(kind: str, any_kind: Kind, pods: RunPods) -> None:
    """On two processes, whose rows are those of one order. TRL's sampler of prompts draws the order of each epoch from
    one generator, transformers' from the epoch's number.
    """
    settings = any_kind(kind, "settings").model_dump(by_alias=True)[kind]
    changed = {
        "dataset": {**settings["dataset"], "validationFraction": 0.7},
        "epochs": 3,
        "checkpoint": {"everySteps": 50},
    }
    whole = any_kind(kind, f"epochs-{kind}", nodes=2, **changed)
    steps = pods(whole, PYTHONPATH=PYTHONPATH).run().total_steps
    name = f"later-{kind}"
    first = pods(any_kind(kind, name, nodes=2, **changed), PYTHONPATH=PYTHONPATH).start()
    first.until_step(steps // 3 + 2)
    first.pods[1].process.terminate()
    assert {word.exit_code for word in first.wait()} == {ExitCode.PREEMPTED}
    again = any_kind(kind, name, nodes=2, attempt=2, **changed)
    pods(again, PYTHONPATH=PYTHONPATH).run()
    expected, made = losses(whole), losses(again)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-5


def test_an_evaluation_at_the_step_of_a_checkpoint_is_part_of_it(any_kind: Kind, pods: RunPods) -> None:
    """It draws answers: whoever goes on from the checkpoint draws the next ones as if nothing had happened."""
    changed = {"epochs": 2, "evaluation": {"everySteps": 6}, "checkpoint": {"everySteps": 6}}
    whole = any_kind("grpo", "evaluated", **changed)
    pods(whole, PYTHONPATH=PYTHONPATH).run()
    first = pods(any_kind("grpo", "evaluated-again", **changed), PYTHONPATH=PYTHONPATH).start()
    first.until_step(8, saved=6)
    first.kill()
    again = any_kind("grpo", "evaluated-again", attempt=2, **changed)
    pods(again, PYTHONPATH=PYTHONPATH).run()
    told = [row["step"] for row in history(again) if "evaluation" in row]
    assert told == [row["step"] for row in history(whole) if "evaluation" in row]
    expected, made = losses(whole), losses(again)
    assert max(abs(made[step] - expected[step]) for step in expected) < 1e-5
    assert evaluations(again) == evaluations(whole), "of the same answers"


def test_how_a_batch_is_split_does_not_matter(any_kind: Kind, pods: RunPods) -> None:
    """Into micro-batches and over processes: neither to the losses nor to the held-out figures."""
    single = any_kind("sft", "split-single", microBatchSize=1, evaluation={"everySteps": 3})
    double = any_kind("sft", "split-double", nodes=2, microBatchSize=4, evaluation={"everySteps": 3})
    for config in (single, double):
        pods(config).run()
    assert losses(double) == pytest.approx(losses(single), abs=1e-5)
    first, second = evaluations(single), evaluations(double)
    assert sorted(first) == sorted(second)
    for step, figures in first.items():
        assert second[step] == pytest.approx(figures, abs=1e-5)


@pytest.mark.parametrize("kind", ["pretrain", "kto"])
def test_weights_that_are_not_finite_are_not_published(kind: str, any_kind: Kind, pods: RunPods) -> None:
    """The gradient was finite: the update itself overflows, in the only step."""
    short: dict[str, Any] = {"steps": 1} if kind == "pretrain" else {"epochs": 0.01}
    config = any_kind(kind, f"overflow-{kind}", zeroStage=0, optimizer={"learningRate": 1e38}, **short)
    word = pods(config).start().wait()[0]
    assert word.exit_code == ExitCode.INTERNAL, word
    assert "is not published" in word.message
    assert not list((Path(config.stage_folder) / "results").glob("step-*"))


SHARED_WAYS: list[tuple[str, dict[str, Any]]] = [
    ("pretrain", {}), ("pretrain", {"nodes": 2, "zeroStage": 3}), ("pretrain", {"nodes": 2, "tensorParallel": 2}),
    ("pretrain", {"nodes": 2, "sequenceParallel": 2}), ("sft", {"nodes": 2, "zeroStage": 3}),
    ("sft", {"lora": {"rank": 4}}), ("dpo", {}), ("kto", {}), ("grpo", {}), ("ppo", {}),
]  # fmt: skip


@pytest.mark.release
@pytest.mark.parametrize("number", range(len(SHARED_WAYS)))
def test_every_kind_answers_reads_the_corpus_and_runs_tasks(
    number: int, any_kind: Kind, prepared: Path, pods: RunPods
) -> None:
    """However its weights, rows or layers are shared; from the same weights come the same answers."""
    kind, changes = SHARED_WAYS[number]
    write_tasks(prepared / "corpus" / "tasks")
    tasks = [{"name": "letters", "uri": "pvc://corpus/tasks/letters.yaml", "numFewshot": 1, "limit": 6}]
    evaluation = {"everySteps": 1000, "tokens": 4096, "corpus": True, "prompts": ["The class of", "What is it?"],
                  "maxNewTokens": 6, "tasks": tasks}  # fmt: skip
    config = any_kind(kind, f"answers-{number}", evaluation=evaluation, **changes)
    progress = pods(config, PYTHONPATH=PYTHONPATH).run()
    told = evaluations(config)
    assert all(figures["bitsPerByte"] > 0 for figures in told.values()), told
    samples = [row["samples"] for row in history(config) if "samples" in row]
    assert len(samples) == len(told)
    assert {score.name: score.samples for score in progress.scores} == {"letters/acc": 6, "letters/acc_norm": 6}
    if kind == "pretrain":
        plain = any_kind("pretrain", "answers-0", evaluation=evaluation)
        if not Path(plain.stage_folder).exists():
            pods(plain).run()
        assert samples[0] == next(row["samples"] for row in history(plain) if "samples" in row)
        assert told[0]["bitsPerByte"] == pytest.approx(evaluations(plain)[0]["bitsPerByte"], rel=1e-5)
