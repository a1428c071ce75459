"""What the first process tells, as far as it is news."""

from __future__ import annotations

import math

from llm_trainer.protocol import Progress
from tests.unit.training import scenes
from tests.unit.training.scenes import NOTICE, stage, status
from tests.unit.world import START, World


def test_progress_is_written_at_its_pace(at_base: World) -> None:
    scenes.step(at_base, START, scenes.told(at_base, 10, START))
    assert status(at_base)["progress"] == "10/100 10%"
    assert scenes.step(at_base, START + 5, scenes.told(at_base, 20, START + 5)).status is None
    scenes.step(at_base, START + 11, scenes.told(at_base, 30, START + 11))
    assert status(at_base)["progress"] == "30/100 30%"


def test_a_published_result_is_news(at_base: World) -> None:
    scenes.step(at_base, START, scenes.told(at_base, 10, START))
    plan = scenes.step(at_base, START + 1, scenes.told(at_base, 11, START + 1, result=scenes.result(at_base)))
    assert [event.reason for event in plan.events] == ["ResultPublished"]
    assert stage(at_base, "base")["result"]["uri"] == "pvc://models/run/base"


def test_a_notice_becomes_one_event(at_base: World) -> None:
    progress = scenes.told(at_base, 10, START, notices=[NOTICE])
    assert [event.reason for event in scenes.step(at_base, START, progress).events] == ["CheckpointSetAside"]
    assert scenes.step(at_base, START + 20, progress.model_copy(update={"heartbeat": START + 20})).events == ()


def test_the_workers_are_shown(at_base: World) -> None:
    workers = stage(at_base, "base")["workers"]
    assert [(worker["rank"], worker["node"]) for worker in workers] == [(0, "node-0"), (1, "node-1")]


def test_figures_that_are_no_numbers_are_told(at_base: World) -> None:
    told = scenes.told(at_base, 10, START, evaluation={"loss": math.nan}, eta_seconds=math.inf)
    scenes.step(at_base, START, Progress.model_validate_json(told.model_dump_json()))
    assert stage(at_base, "base")["progress"]["evaluation"] == {"loss": "nan"}


def test_news_of_another_attempt_is_no_news(at_base: World) -> None:
    progress = scenes.told(at_base, 10, START)
    scenes.step(at_base, START, progress.model_copy(update={"stage": "data"}))
    assert "progress" not in stage(at_base, "base")
