"""`kubectl llm progress`: a line for each training, once or all the while by one watch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubectl_llm.kubectl import Manifest
from kubectl_llm.screen import Style, amount, bar, clean, duration, table
from kubectl_llm.status import cause, number

HEAD = ["NAME", "PHASE", "STAGE", "PROGRESS", "LOSS", "TOKENS/S", "ETA"]
Key = tuple[str, str]


def key(manifest: Manifest) -> Key:
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def row(manifest: Manifest, *, with_namespace: bool) -> list[str]:
    status = manifest.get("status") or {}
    name = "/".join(key(manifest)) if with_namespace else key(manifest)[1]
    stages = [one for one in status.get("stages") or [] if one.get("name") == status.get("stage")]
    told = (stages[0].get("progress") or {}) if stages else {}
    steps, step = number(told.get("steps")), number(told.get("step"))
    done = f"{bar(step / steps)} {step:.0f}/{steps:.0f}" if steps else ""
    return [
        name,
        clean(status.get("phase") or "Pending"),
        clean(status.get("stage") or ""),
        done,
        clean(told.get("loss") or ""),
        amount(number(told["tokensPerSecond"])) if told.get("tokensPerSecond") else "",
        duration(number(told["etaSeconds"])) if told.get("etaSeconds") is not None else "",
    ]


def lines(manifests: Iterable[Manifest], style: Style, *, with_namespace: bool = False) -> list[str]:
    """A head, a line for each by name, and below one that neither runs nor is over why it doesn't."""
    ordered = sorted(manifests, key=key)
    if not ordered:
        return ["no LLMTraining"]
    head, *rows = table([HEAD, *(row(one, with_namespace=with_namespace) for one in ordered)])
    found = [style.dim(head)]
    for manifest, line in zip(ordered, rows, strict=True):
        status = manifest.get("status") or {}
        phase = status.get("phase") or "Pending"
        found.append(line.replace(f" {phase} ", f" {style.word(phase)} ", 1))
        if phase not in ("Running", "Succeeded") and (why := cause(status, ("Failed", "Running"))):
            found.append(style.dim(f"  {why}"))
    return found


def followed(events: Iterable[tuple[str, Manifest]], first: Iterable[Manifest] = ()) -> Iterator[list[Manifest]]:
    """All that are there after each event of a watch."""
    known: dict[Key, Manifest] = {key(one): one for one in first}
    for kind, manifest in events:
        if kind == "DELETED":
            known.pop(key(manifest), None)
        elif kind in ("ADDED", "MODIFIED"):
            known[key(manifest)] = manifest
        yield list(known.values())
