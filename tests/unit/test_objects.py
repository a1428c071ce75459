"""What the metrics count has labels of closed lists, whatever a status says."""

from __future__ import annotations

import itertools
from typing import Any

from llm_operator import objects
from llm_operator.api.common import Condition
from llm_operator.api.reasons import Reason, ServingCondition, TrainingCondition
from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import SERVING, TRAINING
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
    for kind in (TRAINING.name, SERVING.name):
        labels = {values for _, values in told(cached(*spoiled, *STATUSES.values(), kind=kind))}
        assert len(labels) < 12, labels


def test_every_phase_is_on_the_list() -> None:
    for module, kinds in ((training_status, TrainingCondition), (serving_status, ServingCondition)):
        for kind, value, reason in itertools.product(kinds, ("True", "False", "Unknown"), Reason):
            for other in kinds:
                conditions = [
                    Condition(type=kind, status=value, reason=reason, message="", last_transition_time=""),
                    Condition(type=other, status="False", reason=reason, message="", last_transition_time=""),
                ]
                assert module.phase(conditions) in objects.PHASES
