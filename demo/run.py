"""The main job, step by step, on any cluster whose kubeconfig is given: text in, chat answer out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import manifests, progress
from demo.alive import alive
from demo.kubectl import Kubectl

EXAMPLE = Path("examples/bilingual-chat.yaml")


@dataclass(frozen=True)
class Images:
    operator: str
    trainer: str
    app: str


def say(text: str) -> None:
    print(f"\n\033[1m▸ {text}\033[0m" if sys.stdout.isatty() else f"\n> {text}", flush=True)


def wait_for(what: str, ready: Callable[[], bool], seconds: float, state: Callable[[], str] = str) -> None:
    """Until it is ready; what is waited for, for how long and in what state is told meanwhile."""
    deadline = time.monotonic() + seconds
    with alive(f"waiting for {what}", state):
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s")
            time.sleep(0.5)


def install(helm: Path, kubectl: Kubectl, images: Images, *values: str) -> None:
    """The operator, as any user installs it; ``values`` as NAME=VALUE."""
    repository, _, tag = images.operator.rpartition(":")
    trainer_repository, _, trainer_tag = images.trainer.rpartition(":")
    app_repository, _, app_tag = images.app.rpartition(":")
    command = [
        str(helm), "--kubeconfig", str(kubectl.kubeconfig), "upgrade", "--install", "llm-operator",
        "charts/llm-operator", "--namespace", "llm-operator", "--create-namespace", "--wait", "--timeout", "3m",
        "--set", f"image.repository={repository},image.tag={tag}",
        "--set", f"trainerImage.repository={trainer_repository},trainerImage.tag={trainer_tag}",
        "--set", f"appImage.repository={app_repository},appImage.tag={app_tag}",
        *(part for value in values for part in ("--set", value)),
    ]  # fmt: skip
    with alive("helm installs the chart and waits for the operator"):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def upload(kubectl: Kubectl, image: str, storage_class: str | None, folders: dict[str, Path]) -> None:
    """Two claims, a pod that mounts them, and what they shall hold through it: works on every cluster."""
    kubectl.apply(manifests.namespace(kubectl.namespace))
    kubectl.apply(
        *(manifests.claim(name, storage_class) for name in (manifests.CORPUS_CLAIM, manifests.MODELS_CLAIM)),
        manifests.loader(image),
    )

    def running() -> bool:
        pod = kubectl.get("pod", manifests.LOADER)
        return pod is not None and pod["status"].get("phase") == "Running"

    wait_for("the loader pod (it pulls the trainer image)", running, 600)
    for claim, folder in folders.items():
        copy(kubectl, folder, claim)


def copy(kubectl: Kubectl, folder: Path, claim: str) -> None:
    """A folder's content into a claim, whose own folder may belong to somebody else."""
    names = sorted(entry.name for entry in folder.iterdir())
    archive = subprocess.Popen(["tar", "-C", str(folder), "-c", *names], stdout=subprocess.PIPE)
    unpack = ("tar", "-x", "--no-same-owner", "-m", "-C", f"/volumes/{claim}")
    with alive(f"copying into the claim {claim}"):
        kubectl.run("exec", "-i", manifests.LOADER, "--", *unpack, stdin=archive.stdout)
    if archive.wait():
        raise RuntimeError(f"tar could not read {folder}")


def follow(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """Draw a training's progress until it ends; its final status."""
    live, shown, drawn, changed = sys.stdout.isatty(), "", 0.0, 0.0
    while True:
        status = (kubectl.get("llmtraining", name) or {}).get("status", {})
        text, now = progress.line(status) if status else "waiting for the operator", time.monotonic()
        if text != shown:
            shown, changed = text, now
        text = progress.unchanged(text, now - changed)
        if live:
            print(f"\r\033[K{text}", end="", flush=True)
        elif now > drawn + 15:
            print(text, flush=True)
            drawn = now
        if status.get("phase") in ("Succeeded", "Failed"):
            print()
            return dict(status)
        time.sleep(1)


def read(kubectl: Kubectl, path: str) -> str:
    """A text file of the models claim, by its path inside a pod."""
    return kubectl.run("exec", manifests.LOADER, "--", "cat", path)


def read_history(kubectl: Kubectl, status: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """The rows of a stage's history.jsonl."""
    uri: str = next(s for s in status["stages"] if s["name"] == stage)["result"]["uri"]
    folder = "/volumes/" + uri.removeprefix("pvc://").split("/results/")[0]
    return [json.loads(row) for row in read(kubectl, f"{folder}/history.jsonl").splitlines()]


def wait_for_serving(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """The spec of a serving that answers with its model and all its adapters."""

    def condition() -> dict[str, str]:
        conditions = (kubectl.get("llmserving", name) or {}).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Ready"), {})

    def ready() -> bool:
        adapters = (kubectl.get("llmserving", name) or {}).get("status", {}).get("adapters", [])
        return condition().get("status") == "True" and all(adapter["state"] == "Serving" for adapter in adapters)

    wait_for("the served model", ready, 600, lambda: condition().get("message", ""))
    return dict((kubectl.get("llmserving", name) or {})["spec"])
