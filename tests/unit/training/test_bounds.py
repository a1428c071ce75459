"""The greatest status of a training."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.api.training import DATA_STAGE
from llm_operator.api.training_status import (
    AttemptStatus,
    Checkpoint,
    DataStatus,
    DropCount,
    InputStatus,
    LLMTrainingStatus,
    ModelSizeStatus,
    NoticeStatus,
    ProgressStatus,
    PublicationStatus,
    ReadStatus,
    Result,
    ScoreStatus,
    SinceProgress,
    StageStatus,
    TokenCount,
    WorkerStatus,
)
from llm_operator.training.bounds import CURRENT, DATA_SOURCES, OTHER, bounded
from llm_operator.training.events import events_between
from llm_operator.training.progress import MOST_MODELS
from llm_operator.training.reconcile import as_written
from llm_trainer.protocol import Notice
from tests.unit.training import scenes
from tests.unit.training.scenes import NOTICE, stage, status
from tests.unit.world import START, World

BOUND, ESCAPED_BOUND = 320 * 1024, 1024 * 1024  # as docs/design.md says
TIME = "2026-01-01T00:00:00Z"
LONG = 5000
MOST = 2**63 - 1  # that llm_trainer.protocol takes
FIGURE = "-1.7977e+308"
DIGEST = f"sha256:{'d' * 64}"
FOLDER = "pvc://".ljust(512, "f")
TERMS = (  # of api/estimate.py, more than any moment has
    "weights", "optimizer", "adapter", "gathered", "gradients", "activations", "logits", "communication", "update",
    "cache", "runtime", "total", "pod",
)  # fmt: skip


def worst_stage(name: str, letter: str, nodes: int, *, under_way: bool) -> StageStatus:
    """More of everything than the cluster, the spec and rank 0 can give."""
    text = letter * LONG
    figures = {f"{number:06}".ljust(128, "f"): FIGURE for number in range(200)}
    scores = [
        ScoreStatus(name=f"{number:06}".ljust(256, "s"), value=FIGURE, stderr=FIGURE, samples=MOST, few_shot=MOST)
        for number in range(256)
    ]
    progress = ProgressStatus(
        phase=text, step=MOST, steps=MOST, percent=100, tokens=MOST, loss=FIGURE, tokens_per_second=MOST,
        eta_seconds=MOST, attention=text, fetched_bytes=MOST, fetch_bytes=MOST,
        units=MOST, total_units=MOST, bytes_per_second=MOST,
        device=text, mfu=FIGURE, evaluation=figures, scores=scores, world_size=MOST, last_heartbeat_time=TIME,
        sources=[read(text)] * 256, domains=[read(text)] * 200,
    )  # fmt: skip
    ended = [
        AttemptStatus(
            number=number, job="j" * 63, start_time=TIME, end_time=TIME, fault="Infrastructure", reason="r" * 32,
            message=text,
        )
        for number in range(1100, 1120)
    ]  # fmt: skip
    opened = [AttemptStatus(number=1120, job="j" * 63, start_time=TIME)] if under_way else []
    return StageStatus(
        name=name, kind="rewardModel", state="Running" if under_way else "Succeeded", nodes=nodes,
        memory_per_process="1" * 32, peak_memory=dict.fromkeys(TERMS, "1" * 12),
        flops_per_token=MOST, start_time=TIME, end_time=TIME, own_restarts=MOST,
        infrastructure_restarts=MOST, since_progress=SinceProgress(own=100, infrastructure=1000, step=MOST),
        attempts=[*ended, *opened], progress=progress,
        workers=[WorkerStatus(rank=64 * pod, processes=64, pod="p" * 63, node="n" * 253) for pod in range(nodes)],
        checkpoint=Checkpoint(step=MOST, uri=FOLDER, time=TIME, digest=DIGEST),
        result=Result(uri=FOLDER, digest=DIGEST, kind="k" * 32, step=MOST, base=letter * 1024, base_digest=DIGEST),
        models=[
            ModelSizeStatus(
                uri="u" * 256, parameters=MOST, active=MOST, embedding=MOST, attention_width=MOST, width=MOST,
                head=MOST, routed=MOST,
            )
        ] * (MOST_MODELS if name == DATA_STAGE else 0),
        inputs=[InputStatus(uri="u" * 256, revision="r" * 128, bytes=MOST, license="l" * 64)] * MOST_MODELS,
        notices=[NoticeStatus(reason="R" * 64, message=f"{number} {text}") for number in range(40)],
        data=DataStatus(
            tokens=[TokenCount(domain=text, language=text, tokens=MOST) for _ in range(256)],
            dropped=[DropCount(reason=text, documents=MOST) for _ in range(100)],
            sources={f"{number:02}".ljust(64, "s"): MOST for number in range(DATA_SOURCES)},
        ),
    )  # fmt: skip


def read(text: str) -> ReadStatus:
    return ReadStatus(source=text, domain=text, language=text, tokens=MOST, share=FIGURE, asked=FIGURE, epochs=FIGURE)


def worst(letter: str, nodes: int = 1024) -> LLMTrainingStatus:
    names = [DATA_STAGE, *(f"{number:040}" for number in range(1, 17))]
    stages = [worst_stage(name, letter, nodes, under_way=number == 16) for number, name in enumerate(names)]
    conditions = [
        {"type": kind, "status": "False", "observed_generation": MOST, "last_transition_time": TIME,
         "reason": "r" * 32, "message": letter * LONG}
        for kind in ("Accepted", "Running", "Succeeded", "Failed", "Published")
    ]  # fmt: skip
    return LLMTrainingStatus.model_validate(
        {
            "observed_generation": MOST, "observed_restart_token": letter * 253,
            "phase": "Restarting", "stage": stages[-1].name, "progress": "9" * 43, "tokens": "9" * 21,
            "model": {"parameters": MOST, "active_parameters": MOST}, "loss": FIGURE, "nodes": 1024,
            "restarts": 20000, "conditions": conditions, "stages": stages,
            "publications": [
                PublicationStatus(
                    stage="s" * 40, to="t" * 512, state="Failed", attempt=MOST, job="j" * 63, digest=DIGEST,
                    revision="r" * 128, bytes=MOST, time=TIME, message=letter * LONG,
                )
            ] * 8,
        }
    )  # fmt: skip


def size(written: dict[str, object]) -> int:
    """In etcd: JSON in UTF-8 as Go writes it."""
    text = json.dumps(written, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode()) + 5 * sum(text.count(letter) for letter in "<>&")


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀"])
def test_the_greatest_status(letter: str) -> None:
    assert size(as_written(worst(letter))) < BOUND


@pytest.mark.parametrize("letter", ['"', "<", "\x01", "\n"])
def test_the_greatest_status_of_letters_that_json_escapes(letter: str) -> None:
    """Far below what etcd refuses, which is 1.5 MiB."""
    assert size(as_written(worst(letter))) < ESCAPED_BOUND


def test_nothing_is_left_out_in_silence() -> None:
    before, after = worst("x"), bounded(worst("x"))
    for old, new in zip(before.stages, after.stages, strict=True):
        limits = CURRENT if new.name == after.stage else OTHER
        assert old.progress
        assert new.progress
        assert len(new.progress.evaluation) == limits.figures
        assert len(new.progress.evaluation) + (new.progress.evaluation_left_out or 0) == 200
        assert len(new.progress.sources) == len(new.progress.domains) == limits.sources
        assert 2 * limits.sources + (new.progress.sources_left_out or 0) == 456
        assert len(new.notices) + (new.notices_left_out or 0) == 40
        last = old.attempts[-1].number
        assert [attempt.number for attempt in new.attempts] == list(range(last - limits.attempts + 1, last + 1))
        assert all(str(attempt.message).endswith(" … (cut)") for attempt in new.attempts if attempt.end_time)
    data = after.stages[0].data
    assert data
    assert len(data.tokens) + len(data.dropped) + (data.left_out or 0) == 356
    assert [stage.data for stage in after.stages[1:]] == [None] * 16, "data is of its preparation"
    assert len(after.stages[-1].workers) + (after.stages[-1].workers_left_out or 0) == 1024
    assert [stage.workers for stage in after.stages[:-1]] == [[]] * 16, "workers are of the attempt under way"


@given(st.sampled_from("x語"), st.integers(1, 200))
def test_a_bounded_status_stays_as_it_is(letter: str, nodes: int) -> None:
    once = bounded(worst(letter, nodes))
    assert bounded(once) == once
    assert list(events_between(once, once)) == []


def test_figures_of_the_whole_go_first() -> None:
    evaluation = {**{f"bitsPerByte/source-{number}": "1" for number in range(100)}, "loss": "2", "x" * 129: "3"}
    progress = ProgressStatus(evaluation=evaluation)
    stage = StageStatus(name="base", kind="pretrain", progress=progress)
    shown = bounded(LLMTrainingStatus(stages=[stage])).stages[0].progress
    assert shown
    assert shown.evaluation["loss"] == "2"
    assert "x" * 129 not in shown.evaluation
    assert shown.evaluation_left_out == 102 - OTHER.figures


@pytest.mark.parametrize("length", [10, LONG])
def test_notices_are_written_once_whatever_their_length_and_number(at_base: World, length: int) -> None:
    notices = [Notice(reason="Spike", message=f"{number} {'x' * length}") for number in range(50)]
    told = scenes.told(at_base, 10, START, notices=notices)
    plan = scenes.step(at_base, START, told)
    assert [event.reason for event in plan.events] == ["Spike"] * CURRENT.notices
    later = told.model_copy(update={"heartbeat": START + 20})
    assert scenes.step(at_base, START + 20, later).events == ()
    assert len(stage(at_base, "base")["notices"]) == CURRENT.notices


def test_older_notices_are_counted(at_base: World) -> None:
    for number in range(25):
        notice = Notice(reason="Spike", message=str(number))
        scenes.step(at_base, START, scenes.told(at_base, 10, START + 20 * number, notices=[notice]))
    shown = stage(at_base, "base")
    assert [notice["message"] for notice in shown["notices"]] == [str(number) for number in range(5, 25)]
    assert shown["noticesLeftOut"] == 5


def test_a_stage_that_ends_tells_no_notice_again(at_base: World) -> None:
    notices = [NOTICE.model_copy(update={"message": f"{number} {'語' * LONG}"}) for number in range(5)]
    scenes.step(at_base, START, scenes.told(at_base, 10, START, notices=notices))
    scenes.succeed(at_base)
    plans = [scenes.step(at_base, START + 10) for _ in range(2)]
    assert "CheckpointSetAside" not in [event.reason for plan in plans for event in plan.events]
    assert len(stage(at_base, "base")["notices"]) == OTHER.notices
    assert stage(at_base, "base")["noticesLeftOut"] == 2
    assert scenes.step(at_base, START + 10).empty


def test_a_long_problem_is_said_once(world: World) -> None:
    world.owner["spec"]["stages"][0]["pretrain"] = {f"unknown{number}": 1 for number in range(500)}
    assert len(scenes.step(world).events) == 1
    assert scenes.step(world).empty
    assert status(world)["conditions"][0]["message"].endswith(" … (cut)")


def test_workers_go_with_their_attempt(at_base: World) -> None:
    assert len(stage(at_base, "base")["workers"]) == 2
    at_base.owner["spec"]["suspend"] = True
    scenes.settle(at_base)
    assert stage(at_base, "base")["workers"] == []
