"""`kubectl llm report`: the run report, out of a pod of the training or of one that is made to read it, and goes after.

The run folder lies on a claim, which a user of kubectl reaches through a pod alone.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from kubectl_llm.kubectl import TRAININGS, ExitCode, Kubectl, Manifest, PluginError, refusal

LABEL = "llm-operator.io/training"
HTML, MARKDOWN = "report.html", "report.md"
SECONDS = 120  # that a pod may take to start
LIFE_SECONDS = 600  # after which the cluster ends it, should nobody delete it
# Of a pod that reads; the restricted profile of Pod Security.
KEPT = ("securityContext", "imagePullSecrets", "nodeSelector", "tolerations", "runtimeClassName")
SMALL = {"cpu": "100m", "memory": "64Mi"}


def fetch(kubectl: Kubectl, name: str, file: str, image: str | None) -> bytes:
    """The file as it is now. Raises PluginError if it isn't there or can't be reached."""
    training = kubectl.one(TRAININGS, name)
    claim, folder = place(training)
    pods = kubectl.items("pods", "-l", f"{LABEL}={name}")
    jobs = [job for job in kubectl.items("jobs", "-l", f"{LABEL}={name}") if owned(job, training)]
    for pod in pods:
        if any(owned(pod, job) for job in jobs) and running(pod) and (mount := mount_of(pod["spec"], claim)):
            return read(kubectl, pod["metadata"]["name"], mount[0], f"{mount[1]}/{folder}/{file}")
    template = newest(jobs)["spec"]["template"]["spec"] if jobs else None
    made = reader(training, claim, template, image)
    with there(kubectl, made) as pod_name:
        return read(kubectl, pod_name, "reader", f"/volumes/{claim}/{folder}/{file}")


def place(training: Manifest) -> tuple[str, str]:
    """The claim, and the run folder in it."""
    uri = (training.get("status") or {}).get("runUri") or ""
    claim, _, folder = str(uri).removeprefix("pvc://").partition("/")
    if not str(uri).startswith("pvc://") or not folder or ".." in folder.split("/"):
        name = training["metadata"]["name"]
        raise PluginError(
            f"training {name} has no run folder yet: `kubectl llm status {name}` tells why", ExitCode.NOT_FOUND
        )
    return claim, folder


def owned(child: Manifest, owner: Manifest) -> bool:
    """A label is anybody's."""
    owners = child["metadata"].get("ownerReferences") or []
    return any(one.get("uid") == owner["metadata"]["uid"] for one in owners)


def running(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def mount_of(spec: Manifest, claim: str) -> tuple[str, str] | None:
    """Which container has the claim, and where."""
    volumes = {
        volume["name"]
        for volume in spec.get("volumes") or []
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim
    }
    for container in spec.get("containers") or []:
        for mount in container.get("volumeMounts") or []:
            if mount["name"] in volumes and not mount.get("subPath"):
                return container["name"], mount["mountPath"]
    return None


def newest(jobs: list[Manifest]) -> Manifest:
    return max(jobs, key=lambda job: str(job["metadata"].get("creationTimestamp")))


def reader(training: Manifest, claim: str, template: Manifest | None, image: str | None) -> Manifest:
    """A pod of the trainer's image that does nothing, with the claim to read.

    ``template``: of the newest Job's pods, which the cluster has let in before.
    """
    metadata, template = training["metadata"], template or {}
    containers = template.get("containers") or [{}]
    chosen = image or training["spec"].get("image") or containers[0].get("image")
    if not chosen:
        raise PluginError(
            f"no pod and no Job of training {metadata['name']} is left to tell an image: name one with a shell's cat "
            "by --image", ExitCode.USAGE
        )  # fmt: skip
    security: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod_security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    kept = {field: template[field] for field in KEPT if template.get(field)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name'][:40].rstrip('-.')}-report-{secrets.token_hex(4)}",
            "labels": {"llm-operator.io/report-of": metadata["name"][:63].rstrip("-._")},
            "ownerReferences": [{"apiVersion": training["apiVersion"], "kind": training["kind"],
                                 "name": metadata["name"], "uid": metadata["uid"]}],
        },
        "spec": {
            "securityContext": pod_security, **kept,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFE_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": [{
                "name": "reader",
                "image": chosen,
                "command": ["sleep", str(LIFE_SECONDS)],
                "securityContext": containers[0].get("securityContext") or security,
                "resources": {"requests": SMALL, "limits": SMALL},
                "volumeMounts": [{"name": "claim", "mountPath": f"/volumes/{claim}", "readOnly": True}],
            }],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }  # fmt: skip


@contextmanager
def there(kubectl: Kubectl, pod: Manifest) -> Iterator[str]:
    """The pod from its start until the block ends, however that ends; its name."""
    name, refused = pod["metadata"]["name"], False
    with told_to_stop():
        try:
            try:
                create(kubectl, pod)
            except PluginError:
                refused = True
                raise
            started(kubectl, name)
            yield name
        finally:
            if not refused:
                remove(kubectl, name)


@contextmanager
def told_to_stop() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that what it made goes."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def create(kubectl: Kubectl, pod: Manifest) -> None:
    done = subprocess.run(
        kubectl.command("create", "-f", "-"), input=json.dumps(pod), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise refusal(done.stderr)


def started(kubectl: Kubectl, name: str) -> None:
    """Raises PluginError with what keeps it, as far as its status tells."""
    waiting = kubectl.command("wait", f"pod/{name}", "--for=condition=Ready", f"--timeout={SECONDS}s")
    done = subprocess.run(waiting, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if "timed out" not in done.stderr:
        raise refusal(done.stderr)
    found = kubectl.items("pods", name)
    raise PluginError(f"the pod that would read the report doesn't start: {why(found[0] if found else {})}")


def why(pod: Manifest) -> str:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        if waiting := (container.get("state") or {}).get("waiting"):
            return f"{waiting.get('reason')}: {waiting.get('message') or 'no more is told'}"
    for condition in status.get("conditions") or []:
        if condition.get("status") == "False" and condition.get("message"):
            return f"{condition.get('reason')}: {condition['message']}"
    return f"it is {status.get('phase') or 'gone'}"


def read(kubectl: Kubectl, pod: str, container: str, path: str) -> bytes:
    command = kubectl.command("exec", pod, "-c", container, "--", "cat", path)
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout
    errors = done.stderr.decode(errors="replace")
    if "No such file" in errors:
        raise PluginError(
            f"there is no {path} yet: it is written at a stage's first evaluation, by trainers of this version",
            ExitCode.NOT_FOUND,
        )
    raise refusal(errors)


def remove(kubectl: Kubectl, name: str) -> None:
    """In a session of its own: another Ctrl-C must not reach it."""
    command = kubectl.command("delete", "pod", name, "--ignore-not-found", "--wait=false", "--grace-period=0")
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise PluginError(
            f"pod {name} is still there and ends by itself in {LIFE_SECONDS // 60} minutes: {refusal(done.stderr)}"
        )
