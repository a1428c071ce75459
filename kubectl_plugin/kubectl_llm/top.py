"""`kubectl llm top`: what trainings, servings and apps hold, and what comes of it. Pure."""

from __future__ import annotations

from kubectl_llm.kubectl import Manifest, word_of
from kubectl_llm.screen import amount, clean, table
from kubectl_llm.status import number

HEAD = ["KIND", "NAME", "PHASE", "PODS", "DEVICES", "TOKENS/S", "MFU"]


def devices(spec: Manifest, pods: float) -> str:
    """Extended resources of all pods, such as `16 nvidia.com/gpu`."""
    limits = ((spec.get("resources") or {}).get("limits")) or {}
    found = {name: number(count) * pods for name, count in limits.items() if "/" in name}
    return ", ".join(f"{count:g} {clean(name)}" for name, count in found.items()) or "cpu"


def row(manifest: Manifest, *, with_namespace: bool) -> list[str]:
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    name = f"{metadata.get('namespace', '')}/{metadata['name']}" if with_namespace else metadata["name"]
    phase = clean(status.get("phase") or "Pending")
    if manifest["kind"] != "LLMTraining":
        pods = number(status.get("replicas"))
        return [word_of(manifest["kind"]), name, phase, f"{pods:g}", devices(spec, pods), "", ""]
    stages = [one for one in status.get("stages") or [] if one.get("name") == status.get("stage")]
    own: Manifest = next((one for one in spec.get("stages") or [] if one.get("name") == status.get("stage")), {})
    pods = number(status.get("nodes")) if phase in ("Running", "Starting") else 0
    told = (stages[0].get("progress") or {}) if stages and pods else {}
    speed = amount(number(told["tokensPerSecond"])) if told.get("tokensPerSecond") else ""
    held = devices({**spec, **({"resources": own["resources"]} if own.get("resources") else {})}, pods)
    return ["training", name, phase, f"{pods:g}", held if pods else "", speed, clean(told.get("mfu") or "")]


def lines(manifests: list[Manifest], *, with_namespace: bool) -> list[str]:
    rows = sorted(row(one, with_namespace=with_namespace) for one in manifests)
    return table([HEAD, *rows]) if rows else ["no LLMTraining, no LLMServing and no LLMApp"]
