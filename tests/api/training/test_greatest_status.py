"""The greatest statuses, as a real API server takes and keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_operator.serving.bounds import bounded
from llm_operator.training.reconcile import as_written
from tests.cluster.control_plane import ControlPlane
from tests.specs import SERVING, TRAINING
from tests.unit.serving.test_bounds import worst as worst_serving
from tests.unit.training.test_bounds import worst as worst_training

STATUSES: dict[str, tuple[dict[str, Any], Callable[[str], dict[str, Any]]]] = {
    "LLMTraining": (TRAINING, lambda letter: as_written(worst_training(letter))),
    "LLMServing": (
        SERVING,
        lambda letter: bounded(worst_serving(letter)).model_dump(mode="json", by_alias=True, exclude_none=True),
    ),
}


@pytest.mark.parametrize("letter", ["語", "😀", "\x01"])
@pytest.mark.parametrize("kind", STATUSES)
def test_it_is_taken_and_kept(api_server: ControlPlane, kind: str, letter: str) -> None:
    spec, status = STATUSES[kind][0], STATUSES[kind][1](letter)
    name = f"greatest-{ord(letter)}"
    manifest: dict[str, Any] = {
        "apiVersion": "llm-operator.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }
    file = api_server.state / f"{name}-{kind}.json"
    file.write_text(json.dumps(manifest))
    api_server.kubectl("create", "-f", file)
    file.write_text(json.dumps({**manifest, "status": status}))
    api_server.kubectl("replace", "--subresource=status", "-f", file)
    kept = json.loads(api_server.kubectl("-n", "default", "get", kind, name, "-o", "json"))["status"]
    assert kept == status, (
        "the API server must neither drop nor change what is written: the next pass would write again"
    )
