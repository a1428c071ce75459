"""What the first process tells, as far as it is news."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from llm_operator.training.progress import workers
from llm_trainer.protocol import Notice, Progress, ReadTokens, Score
from tests.unit.training import scenes
from tests.unit.training.scenes import NOTICE, stage, status
from tests.unit.world import START, World


def test_progress_is_written_at_its_pace(at_base: World) -> None:
    scenes.step(at_base, START, scenes.told(at_base, 10, START))
    assert status(at_base)["progress"] == "10/100 10%"
    assert scenes.step(at_base, START + 5, scenes.told(at_base, 20, START + 5)).status is None
    scenes.step(at_base, START + 11, scenes.told(at_base, 30, START + 11))
    assert status(at_base)["progress"] == "30/100 30%"


def test_the_loss_is_of_the_stage_beside_it(at_base: World) -> None:
    """What a stage before had may be of another objective."""
    scenes.step(at_base, START, scenes.told(at_base, 10, START))
    assert (status(at_base)["stage"], float(status(at_base)["loss"])) == ("base", 5.0)
    scenes.succeed(at_base)
    scenes.settle(at_base)
    assert status(at_base)["stage"] == "chat"
    assert "loss" not in status(at_base)


def test_a_published_result_is_news(at_base: World) -> None:
    scenes.step(at_base, START, scenes.told(at_base, 10, START))
    plan = scenes.step(at_base, START + 1, scenes.told(at_base, 11, START + 1, result=scenes.result(at_base)))
    assert [event.reason for event in plan.events] == ["ResultPublished"]
    assert (
        stage(at_base, "base")["result"]["uri"] == "pvc://models/bilingual-0123abcd/stages/base/results/step-00000100"
    )


def test_a_notice_becomes_one_event(at_base: World) -> None:
    progress = scenes.told(at_base, 10, START, notices=[NOTICE])
    assert [event.reason for event in scenes.step(at_base, START, progress).events] == ["CheckpointSetAside"]
    assert scenes.step(at_base, START + 20, progress.model_copy(update={"heartbeat": START + 20})).events == ()


def test_the_workers_are_shown(at_base: World) -> None:
    shown = stage(at_base, "base")["workers"]
    assert [(worker["rank"], worker["node"]) for worker in shown] == [(0, "node-0"), (1, "node-1")]


def test_a_pod_is_one_worker_whatever_its_processes(at_base: World) -> None:
    found = workers(reversed(scenes.pods(at_base)), 8)
    assert [(worker.rank, worker.processes, worker.node) for worker in found] == [(0, 8, "node-0"), (8, 8, "node-1")]


def test_units_and_speed_of_data_preparation_are_shown(at_base: World) -> None:
    told = scenes.told(at_base, 10, START, units=3, total_units=12, bytes_per_second=1.5e6, eta_seconds=99.6)
    scenes.step(at_base, START, told)
    shown = stage(at_base, "base")["progress"]
    assert (shown["units"], shown["totalUnits"]) == (3, 12)
    assert (shown["bytesPerSecond"], shown["etaSeconds"]) == (1_500_000, 100)
    begun = told.model_copy(update={"units": 0, "heartbeat": START + 20})
    scenes.step(at_base, START + 20, begun)
    assert stage(at_base, "base")["progress"]["units"] == 0


def test_figures_that_are_no_numbers_are_told(at_base: World) -> None:
    told = scenes.told(at_base, 10, START, evaluation={"loss": math.nan}, eta_seconds=math.inf)
    scenes.step(at_base, START, Progress.model_validate_json(told.model_dump_json()))
    assert stage(at_base, "base")["progress"]["evaluation"] == {"loss": "nan"}


def test_the_device_and_its_share_are_told(at_base: World) -> None:
    """A last word may be too short for the device."""
    told = scenes.told(at_base, 10, START, device="NVIDIA H100 80GB HBM3", mfu=0.48251)
    scenes.step(at_base, START, told)
    shown = stage(at_base, "base")["progress"]
    assert (shown["device"], shown["mfu"]) == ("NVIDIA H100 80GB HBM3", "0.4825")
    scenes.step(at_base, START + 11, scenes.told(at_base, 20, START + 11))
    shown = stage(at_base, "base")["progress"]
    assert shown["device"] == "NVIDIA H100 80GB HBM3"
    assert "mfu" not in shown


def test_scores_are_told_with_their_error_and_stay(at_base: World) -> None:
    """A last word may be too short for them."""
    scores = [
        Score(task="qa", metric="acc", value=0.55, stderr=0.11, samples=20, few_shot=2),
        Score(task="qa", metric="exact_match", filter="first", value=math.nan),
        Score(task="qa", metric="x" * 128, filter="y" * 128, value=1.0),  # a longer name than a status has
    ]
    told = scenes.told(at_base, 10, START, scores=scores)
    scenes.step(at_base, START, Progress.model_validate_json(told.model_dump_json(by_alias=True)))
    shown = stage(at_base, "base")["progress"]
    assert shown["scores"] == [
        {"name": "qa/acc", "value": "0.5500", "stderr": "0.1100", "samples": 20, "fewShot": 2},
        {"name": "qa/exact_match,first", "value": "nan", "samples": 0, "fewShot": 0},
    ]
    assert shown["scoresLeftOut"] == 1
    scenes.step(at_base, START + 11, scenes.told(at_base, 20, START + 11))
    assert stage(at_base, "base")["progress"]["scores"] == shown["scores"]
    assert stage(at_base, "base")["progress"]["scoresLeftOut"] == 1


def test_what_was_read_of_each_source_is_told(at_base: World) -> None:
    """A last word may be too short for it."""
    of_domain = ReadTokens(domain="web", language="ja", tokens=750, share=0.75, asked=2 / 3)
    source = of_domain.model_copy(update={"source": "web-ja", "epochs": 1.5})
    scenes.step(at_base, START, scenes.told(at_base, 10, START, sources=[source], domains=[of_domain]))
    expected = {"domain": "web", "language": "ja", "tokens": 750, "share": "0.7500", "asked": "0.6667"}
    for step in (10, 20):
        shown = stage(at_base, "base")["progress"]
        assert shown["domains"] == [expected]
        assert shown["sources"] == [{"source": "web-ja", **expected, "epochs": "1.5000"}]
        scenes.step(at_base, START + 11, scenes.told(at_base, step + 10, START + 11))


def test_any_figure_is_told_in_short(at_base: World) -> None:
    told = scenes.told(at_base, 10, START, evaluation={"loss": -1e308}, tokens_per_second=1e300, eta_seconds=-1e300)
    scenes.step(at_base, START, told.model_copy(update={"loss": 1e308}))
    shown = stage(at_base, "base")["progress"]
    assert (shown["loss"], shown["evaluation"]) == ("1.0000e+308", {"loss": "-1.0000e+308"})
    assert "tokensPerSecond" not in shown
    assert "etaSeconds" not in shown


GOOD = {"uri": "pvc://models/r", "digest": f"sha256:{'d' * 64}", "kind": "model"}


@pytest.mark.parametrize(
    "told",
    [
        {"heartbeat": 1e300}, {"heartbeat": math.inf}, {"heartbeat": math.nan}, {"heartbeat": -1}, {"step": -1},
        {"tokens": 2**63}, {"worldSize": 2**63}, {"checkpoint": {"step": 1, "uri": "pvc://models/c", "time": 1e300}},
        {"checkpoint": {"step": 1, "uri": f"pvc://models/{'c' * 512}", "time": 0}},
        {"result": {"uri": "pvc://models/語", "digest": "sha256:1", "kind": "model"}},
        {"result": {"uri": "pvc://models/r", "digest": f"sha256:{'D' * 64}", "kind": "model"}},
        {"result": {**GOOD, "digest": f"sha256:{'d' * 64}\n"}}, {"result": {**GOOD, "digest": "../../etc/passwd"}},
        {"result": {**GOOD, "kind": "\x1b[31m"}}, {"result": {**GOOD, "base": "pvc://models/b\x1b[31m"}},
        {"result": {**GOOD, "base": "file:///etc"}}, {"result": {**GOOD, "baseDigest": "sha256:1"}},
        {"result": {**GOOD, "step": 10**100}}, {"step": 10**100}, {"tokens": 1e300}, {"attempt": 10**100},
        {"workers": [{"rank": 2**31, "host": "h", "node": "n"}]}, {"evaluation": {"loss": {"a": {"b": 1}}}},
        {"notices": [{"reason": "", "message": "an event needs a reason"}]},
    ],
    ids=", ".join,
)  # fmt: skip
def test_what_a_status_could_not_hold_is_no_progress(told: dict[str, object]) -> None:
    """The image is the user's: whatever it says, the passes of the training go on."""
    assert Progress.model_validate_json(json.dumps({"stage": "base", "attempt": 1, "result": GOOD}))
    with pytest.raises(ValidationError):
        Progress.model_validate_json(json.dumps({"stage": "base", "attempt": 1, **told}))


def test_news_of_another_attempt_is_no_news(at_base: World) -> None:
    progress = scenes.told(at_base, 10, START)
    scenes.step(at_base, START, progress.model_copy(update={"stage": "data"}))
    assert "progress" not in stage(at_base, "base")


@pytest.mark.parametrize("nested", ['{"a":' * 5000, "[" * 5000, '{"evaluation":' * 900])
def test_an_answer_of_any_depth_is_no_progress(nested: str) -> None:
    with pytest.raises(ValidationError):
        Progress.model_validate_json(nested)
    with pytest.raises(ValidationError):
        Progress.model_validate_json('{"stage": "base", "attempt": 1, "evaluation": ' + nested)


def test_what_a_pod_says_is_shown_without_what_a_terminal_obeys(at_base: World) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\u202egood\x00"
    told = scenes.told(at_base, 10, START, notices=[Notice(reason="Hm", message=f"a{hostile}b")], attention=hostile)
    told = told.model_copy(update={"phase": hostile, "evaluation": {"loss": 1.0, hostile: 2.0}})
    scenes.step(at_base, START, told)
    shown = stage(at_base, "base")
    assert shown["notices"][0]["message"] == "agood b"
    assert (shown["progress"]["phase"], shown["progress"]["attention"]) == ("good ", "good ")
    assert (shown["progress"]["evaluation"], shown["progress"]["evaluationLeftOut"]) == ({"loss": "1.0000"}, 1)
    assert not set(json.dumps(status(at_base), ensure_ascii=False)) & set("\x00\x07\x1b\u202e")


def test_a_time_that_lies_ahead_does_not_silence_what_follows(at_base: World) -> None:
    scenes.step(at_base, START, scenes.told(at_base, 10, 9e10))
    scenes.step(at_base, START + 11, scenes.told(at_base, 30, START + 11))
    assert status(at_base)["progress"] == "30/100 30%"
