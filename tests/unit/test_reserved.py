"""Volumes and folders of our pods are those that a user's may not have: of two the API server refuses the pod."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_operator.api.pod_validation import OUR_FOLDERS, OUR_VOLUMES
from llm_operator.kube.plan import Manifest
from tests.app_specs import AGENTS, EMBEDDED, EVERYTHING, IN_DATABASE
from tests.specs import REMOVE, Spec, changed
from tests.unit.apps import scenes as apps
from tests.unit.apps.test_knowledge import embedder
from tests.unit.training.test_publishing import finish, published

GOLDENS = sorted(Path(__file__).parent.rglob("golden/*.yaml"))
SCRATCH = ("/tmp", "/dev/shm")  # a user's volume may stand in their place


def pods(value: Any) -> Iterator[Manifest]:
    """Every spec of a pod in it."""
    if isinstance(value, dict) and "containers" in value:
        yield value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from pods(below)


def check(pod: Manifest) -> None:
    names = [volume["name"] for volume in pod["volumes"]]
    claims = [told["claimName"] for volume in pod["volumes"] if (told := volume.get("persistentVolumeClaim"))]
    assert [name for name in names if not OUR_VOLUMES.fullmatch(name)] == [], "a user's volume may have this name"
    assert len(set(names)) == len(names)
    assert len(set(claims)) == len(claims), "a kubelet may wait for ever for a second volume of one claim"
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        folders = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(set(folders)) == len(folders)
        assert [at for at in folders if at not in SCRATCH and not at.startswith(OUR_FOLDERS)] == []


def test_of_trainings_servings_and_apps() -> None:
    found = [pod for file in GOLDENS for each in yaml.safe_load_all(file.read_text()) for pod in pods(each)]
    assert len(found) >= 8
    for pod in found:
        check(pod)


@pytest.mark.parametrize(
    "spec",
    [
        changed(EVERYTHING, evaluation__gate="none", evaluation__thresholds=REMOVE),
        EMBEDDED,
        IN_DATABASE,
        AGENTS,
        changed(AGENTS, storage__persistentVolumeClaim__claimName="sessions"),
    ],
)
def test_of_apps_with_all_that_they_may_have(spec: Spec) -> None:
    world, source = apps.scene(spec), apps.serving(adapter="acme/legal-v1.2", tls={"secretName": "chat-tls"})
    more = {"embedders": embedder(tls={"secretName": "e-tls"}), "claims": ("models", "corpus", "sessions")}
    apps.settle(world, source, **more)
    apps.end_jobs(world)
    apps.settle(world, source, **more)
    apps.end_jobs(world, f1=1.0, hitAt5=1.0)
    apps.settle(world, source, **more)
    assert world.of("Deployment"), world.owner["status"]
    for each in world.objects.values():
        for pod in pods(each):
            check(pod)


def test_of_a_training_that_publishes() -> None:
    world = published({"to": "s3://models/team/base", "stage": "base"})
    finish(world, "data", "base")
    made = list(pods([each for each in world.objects.values() if "-publish-" in each["metadata"]["name"]]))
    assert made
    for pod in made:
        check(pod)
