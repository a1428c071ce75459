"""A status may be written in half: by hand, or by a kubelet of another version."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.kube.pods import condition_of, container_state, held_up, holds


@pytest.mark.parametrize("half", [{}, {"type": "Ready"}, {"status": "True"}])
def test_half_a_condition_is_none(half: dict[str, Any]) -> None:
    pod = {"metadata": {"name": "a"}, "status": {"conditions": [half]}}
    assert condition_of(pod, "Ready") is None
    assert not holds(pod, "Ready")


def test_an_end_without_a_code_is_none() -> None:
    ended = [{"name": "trainer", "state": {"terminated": {"reason": "Completed"}}}]
    assert container_state({"status": {"containerStatuses": ended}}, "trainer", "terminated") is None


@pytest.mark.parametrize(
    "half", [{}, {"state": {"terminated": {"exitCode": 1}}}, {"name": "i", "state": {"terminated": {}}}]
)
def test_half_an_init_container_holds_nothing_up(half: dict[str, Any]) -> None:
    assert held_up({"metadata": {"name": "a"}, "status": {"initContainerStatuses": [half]}}, "trainer") is None
