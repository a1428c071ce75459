"""What the metrics count has labels of closed lists, whatever a status says."""

from __future__ import annotations

import itertools
from typing import Any

from llm_operator import objects
from llm_operator.api.common import Condition
from llm_operator.api.conditions import timestamp
from llm_operator.api.reasons import AppCondition, Reason, ServingCondition, TrainingCondition
from llm_operator.apps import status as app_status
from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import APP, SERVING, TRAINING
from llm_operator.serving import status as serving_status
from llm_operator.training import status as training_status
from tests.hostile import STATUSES


def cached(*statuses: Any, kind: str = TRAINING.name) -> Cache:
    cache = Cache()
    for number, status in enumerate(statuses):
        metadata = {"namespace": "team", "name": f"o-{number}", "uid": str(number), "resourceVersion": "1"}
        cache.put(kind, {"kind": kind, "metadata": metadata, "spec": {}, "status": status})
    return cache


def told(cache: Cache) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (family.name.removeprefix("llm_operator_"), tuple(sample.labels.values())): sample.value
        for collector in objects.counts(cache)
        for family in collector.collect()
        for sample in family.samples
    }


def test_phases_and_conditions_are_counted() -> None:
    waits = {"phase": "Pending", "conditions": [{"type": "Running", "status": "False", "reason": "Unschedulable"}]}
    found = told(cached(waits, waits, {"phase": "Running"}, None))
    assert found["llmtrainings", ("Pending",)] == 3
    assert found["llmtrainings", ("Running",)] == 1
    assert found["llmtraining_conditions", ("Running", "False", "Unschedulable")] == 2


def test_the_last_restart() -> None:
    stages = [{"name": "a", "state": "Succeeded", "sinceProgress": {"own": 3}},
              {"name": "b", "state": "Running", "sinceProgress": {"own": 3, "infrastructure": 1}}]  # fmt: skip
    found = told(cached({"stage": "b", "stages": stages}, {"stage": "a", "stages": stages}))
    assert found["llmtrainings_last_restart", ("Own",)] == 1
    assert ("llmtrainings_last_restart", ("Infrastructure",)) not in found


def test_words_of_others_make_no_series() -> None:
    """A hundred statuses by hand, each with a word of its own."""
    spoiled = [
        {"phase": f"x{i}", "conditions": [{"type": f"t{i}", "reason": "r"}, {"type": "Running", "reason": f"r{i}"}]}
        for i in range(100)
    ]
    for kind in (TRAINING.name, SERVING.name, APP.name):
        labels = {values for _, values in told(cached(*spoiled, *STATUSES.values(), kind=kind))}
        assert len(labels) < 12, labels


def test_every_phase_is_on_the_list() -> None:
    rooms = ((training_status, TrainingCondition), (serving_status, ServingCondition), (app_status, AppCondition))
    for module, kinds in rooms:
        for kind, value, reason in itertools.product(kinds, ("True", "False", "Unknown"), Reason):
            for other in kinds:
                conditions = [
                    Condition(type=kind, status=value, reason=reason, message="", last_transition_time=""),
                    Condition(type=other, status="False", reason=reason, message="", last_transition_time=""),
                ]
                assert module.phase(conditions) in objects.PHASES


def test_the_phases_of_an_app_are_on_the_list() -> None:
    """Each of them needs several conditions."""
    assert {*app_status.PHASES.values(), "Evaluating", "Indexing", "Invalid", "Starting", "Waiting"} <= objects.PHASES


def test_the_lowest_score_of_each_metric() -> None:
    def evaluated(**scores: Any) -> dict[str, Any]:
        return {"evaluation": {"scores": [{"metric": metric, "value": value} for metric, value in scores.items()]}}

    found = told(cached(evaluated(contains=0.9, mrr=0.5), evaluated(contains=0.7), {"evaluation": None},
                        evaluated(made_up=0.1, judge="x", f1=7), kind=APP.name))  # fmt: skip
    scores = {labels: value for (name, labels), value in found.items() if name == "llmapp_lowest_score"}
    assert scores == {("contains",): 0.7, ("mrr",): 0.5}


def test_for_how_long_knowledge_is_outdated() -> None:
    def ready(since: float, value: str = "False") -> dict[str, Any]:
        return {"conditions": [{"type": "KnowledgeReady", "status": value, "lastTransitionTime": timestamp(since)}]}

    cache = cached(
        ready(900), ready(400), ready(100, "True"), {"conditions": [{"type": "KnowledgeReady"}]}, kind=APP.name
    )
    found = objects.Outdated(objects.Objects(cache, APP), now=lambda: 1000.0)
    assert sorted(seconds for _, seconds in found) == [100, 600]
    assert told(Cache())["llmapp_knowledge_outdated_seconds", ()] == 0


def test_for_how_long_a_fetch_has_brought_nothing() -> None:
    """By what it shows at each look: a status tells no time of it."""
    clock, versions = [0.0], itertools.count(2)

    def fetch(count: int | None, reason: str = "Fetching") -> dict[str, Any]:
        return {"inputs": [{"uri": "hf://a/b", "reason": reason, "fetchedBytes": count}]}

    cache = cached(fetch(1), fetch(None), kind=SERVING.name)
    idle = objects.IdleFetches(objects.Objects(cache, SERVING), now=lambda: clock[0])

    def longest(at: float) -> float:
        clock[0] = at
        return max((seconds for _, seconds in idle), default=0.0)

    def shows(number: int, status: dict[str, Any]) -> None:
        (of,) = (one for one in cached(*[{}] * number, status, kind=SERVING.name).objects(SERVING.name)
                 if one["metadata"]["uid"] == str(number))  # fmt: skip
        of["metadata"]["resourceVersion"] = str(next(versions))
        cache.put(SERVING.name, of)

    assert longest(0) == 0
    assert longest(60) == 60
    shows(0, fetch(2))
    shows(1, fetch(None, "Fetched"))
    assert longest(90) == 0, "bytes have come of one, and the other is there"
    assert longest(100) == 10
    shows(0, fetch(2, "FetchFailed"))
    assert longest(500) == 0, "that is told by its reason"
