"""What a status says of a pass that failed: whatever the cause, whatever the status, and without secrets."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from llm_operator.api.text import TEXT_BYTES
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.kube.client import ApiError, DeleteRefusedError
from llm_operator.kube.failure import cleared, named, settled, told, without_secrets
from llm_operator.kube.plan import Event, Manifest, Plan

NOW = 1_767_225_600.0
CONDITION = {"status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z", "observedGeneration": 3, "message": ""}
GOES: Manifest = {
    "phase": "Running",
    "conditions": [
        {**CONDITION, "type": "Accepted", "reason": "Valid"},
        {**CONDITION, "type": "Running", "reason": "Running", "message": "2 pods run"},
    ],
    "stages": [{"name": "base", "kind": "pretrain", "attempts": [{"number": 7, "startTime": "yesterday"}]}],
    "ofANewerVersion": {"kept": 1},
}


def owner(status: Any = None, generation: int = 3) -> Manifest:
    return {"kind": "LLMTraining", "metadata": {"generation": generation}, **({"status": status} if status else {})}


def said(plan: Plan) -> Manifest:
    assert plan.status is not None
    return named(plan.status["conditions"], "Running")


def test_the_condition_says_what_failed_and_all_else_of_the_status_stays() -> None:
    given = copy.deepcopy(GOES)
    plan = told(owner(given), "Running", KeyError("exitCode"), NOW)
    assert plan.status is not None
    assert said(plan)["status"] == "Unknown"
    assert said(plan)["reason"] == "ReconcileError"
    assert said(plan)["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert said(plan)["message"].startswith("KeyError: 'exitCode'; ")
    assert plan.status["phase"] == "Unknown"
    assert [event.reason for event in plan.events] == ["ReconcileError"]
    assert {**plan.status, "phase": "Running", "conditions": GOES["conditions"]} == GOES
    assert given == GOES, "what the cache holds isn't changed"


def test_what_is_over_stays_over() -> None:
    done = {"phase": "Succeeded", "conditions": [{**CONDITION, "type": "Succeeded", "reason": "Succeeded"}]}
    plan = told(owner(done), "Running", RuntimeError("x"), NOW)
    assert plan.status is not None
    assert plan.status["phase"] == "Succeeded"
    assert said(plan)["reason"] == "ReconcileError"


def test_the_same_again_is_no_news() -> None:
    first = told(owner(GOES), "Running", RuntimeError("x"), NOW)
    again = told(owner(first.status), "Running", RuntimeError("x"), NOW + 100)
    assert again == Plan(status=first.status)


@pytest.mark.parametrize(
    "words",
    [
        "denied; request 8d5e957f-297c-4c5a-a7f0-0c1a5b2f5a00",
        "denied; request 11111111-2222-3333-4444-555555555555",
        "denied at 2026-11-26T05:30:18.123Z; request 8d5e957f-297c-4c5a-a7f0-0c1a5b2f5a00",
    ],
)
def test_a_text_that_names_the_request_stands_until_it_says_something_else(words: str) -> None:
    new = "denied; request 00000000-0000-0000-0000-000000000000"
    if " at " in words:
        new = "denied at 2026-11-26T06:00:00Z; request 00000000-0000-0000-0000-000000000000"
    first = told(owner(GOES), "Running", ApiError(500, words), NOW)
    again = told(owner(first.status), "Running", ApiError(500, new), NOW + 100)
    assert again.status == first.status
    other = told(owner(first.status), "Running", ApiError(500, "disk full"), NOW + 100)
    assert "disk full" in said(other)["message"]
    assert other.events == (), "an event for every change of reason"
    edited = told(owner(first.status, generation=4), "Running", ApiError(500, new), NOW + 100)
    assert said(edited)["observedGeneration"] == 4


def test_a_refusal_that_a_room_tells_stands_as_well() -> None:
    def refusal(request: str) -> Manifest:
        told_of = {**CONDITION, "type": "Running", "reason": "ApplyRefused", "message": f"denied {request}"}
        return {"conditions": [told_of], "phase": "Pending"}

    before, after = (refusal(f"{n * 8}-0000-0000-0000-000000000000") for n in "12")
    assert settled(owner(before), Plan(status=after), "Running").status == before
    assert settled(owner(GOES), Plan(status=after), "Running").status == after
    assert settled(owner(), Plan(), "Running") == Plan()


def test_a_child_that_must_stay_is_told_beside_what_was_done() -> None:
    """What the pass has learned is written; the condition stays what it is."""
    learned = {**GOES, "restarts": 5}
    done = Plan(status=learned, events=(Event("Warning", "AttemptFailed", "attempt 7 failed"),))
    error = DeleteRefusedError(403, "Job a: can't be deleted: protected")
    plan = told(owner(GOES), "Running", error, NOW, done=done)
    assert plan.status is not None
    assert (plan.status["restarts"], plan.status["phase"], said(plan)["status"]) == (5, "Running", "True")
    assert said(plan)["reason"] == "DeleteRefused"
    assert said(plan)["message"] == "Job a: can't be deleted: protected"
    assert [event.reason for event in plan.events] == ["AttemptFailed", "DeleteRefused"]


def test_a_pass_that_goes_well_takes_the_word_back() -> None:
    failed = told(owner(GOES), "Running", RuntimeError("x"), NOW).status
    mended = cleared(owner(failed), Plan(), "Running").status
    assert mended is not None
    assert [condition["type"] for condition in mended["conditions"]] == ["Accepted"]
    assert cleared(owner(failed), Plan(status=GOES), "Running") == Plan(status=GOES)
    assert cleared(owner(GOES), Plan(), "Running") == Plan()


def test_a_validation_is_told_by_fields_without_their_values() -> None:
    with pytest.raises(ValidationError) as wrong:
        LLMTrainingStatus.model_validate({"stages": [{"name": {"key": "hunter2"}}], "nodes": "hunter2"})
    message = said(told(owner(GOES), "Running", wrong.value, NOW))["message"]
    assert "LLMTrainingStatus: nodes: Input should be a valid integer" in message
    assert "stages.0.name" in message
    assert "hunter2" not in message


def test_of_many_problems_the_first_are_told() -> None:
    class Many(BaseModel):
        values: list[int]

    with pytest.raises(ValidationError) as wrong:
        Many.model_validate({"values": ["x"] * 50})
    assert "; and 47 more; " in said(told(owner(), "Running", wrong.value, NOW))["message"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer eyJhbGciOi.x.y sent", "Authorization: Bearer … sent"),
        ("https://user:hunter2@host/path", "https://user:…@host/path"),
        ("HF_TOKEN=hunter2 is wrong", "HF_TOKEN=… is wrong"),
        ('{"password": "hunter2", "user": "a"}', '{"password": "…", "user": "a"}'),
        ("no match for pvc://models/a", "no match for pvc://models/a"),
    ],
)
def test_no_secret_is_told(text: str, left: str) -> None:
    assert without_secrets(text) == left


@pytest.mark.parametrize("text", ["a-", "token", "token-", "://", "://a:", "bearer ", "token ", "secret='"])
def test_a_long_text_costs_no_more_than_its_length(text: str) -> None:
    """An API server repeats what a user has written; of 32 kB of `a-` the event loop was held for 20 s."""
    whole = text * (1_000_000 // len(text))
    assert len(without_secrets(whole)) <= len(whole) + 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "reason", "x"]), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["phase", "stages", "other"]), JSON),
    st.lists(JSON | st.fixed_dictionaries({"type": st.sampled_from(["Running", "Failed"]), "status": JSON})),
    st.text(max_size=3000),
)
def test_it_can_be_said_on_any_status(status: Manifest, conditions: list[Any], words: str) -> None:
    plan = told(owner({**status, "conditions": conditions}), "Running", RuntimeError(words), NOW)
    assert len(said(plan)["message"].encode()) <= TEXT_BYTES
    assert cleared(owner(plan.status), Plan(), "Running").status is not None


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
@pytest.mark.parametrize("error", [DeleteRefusedError(403, "Job x: can't be deleted"), RuntimeError("x")])
def test_what_is_over_has_its_condition_again_when_the_word_is_taken_back(end: str, error: Exception) -> None:
    """No pass over it tells it anew, and whoever waits for `Running=False` would wait for ever."""
    over = {**CONDITION, "type": end, "reason": "DataError", "message": "no JSON"}
    running = {**over, "type": "Running", "status": "False"}
    status = {"phase": end, "conditions": [running, over]}
    plan = told(owner(status), "Running", error, NOW)
    assert said(plan)["reason"] in ("DeleteRefused", "ReconcileError")
    assert cleared(owner(plan.status), Plan(), "Running").status == status
