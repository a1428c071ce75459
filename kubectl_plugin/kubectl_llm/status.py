"""`kubectl llm status`: each object as a tree of what it is made of, with the cause of what it does. Pure.

What an older operator doesn't tell is left out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubectl_llm.kubectl import Manifest
from kubectl_llm.screen import Style, Tree, amount, bar, clean, duration, seconds_between

ATTEMPTS = 3  # the newest of a stage that are shown
STARTUP = {"fetch": "fetched before in", "import": "imports", "load": "weights", "compile": "compiling",
           "warmUp": "warm-up"}  # fmt: skip
UNSEEN = "no operator has looked at it yet: is one installed that serves this namespace?"


def tree(manifest: Manifest, style: Style, now: datetime) -> Tree:
    return {"LLMTraining": training, "LLMApp": app}.get(manifest["kind"], serving)(manifest, style, now)


def failed(manifest: Manifest) -> bool:
    return (manifest.get("status") or {}).get("phase") in ("Failed", "Invalid")


def training(manifest: Manifest, style: Style, now: datetime) -> Tree:
    status = manifest.get("status") or {}
    found = Tree(f"training {manifest['metadata']['name']}  {style.word(clean(status.get('phase') or 'Pending'))}")
    for each in status.get("stages") or []:
        stage(found, each, style, now)
    if why := cause(status, ("Failed", "Running", "Succeeded")):
        found.add(why)
    elif not status:
        found.add(UNSEEN)
    return found


def stage(parent: Tree, told: Manifest, style: Style, now: datetime) -> None:
    state = str(told.get("state") or "Pending")
    words = [clean(told.get("name")), style.word(clean(state))]
    spent = seconds_between(told.get("startTime"), told.get("endTime"), now)
    if state == "Running":
        words += figures(told.get("progress") or {})
    elif spent is not None:
        words.append(duration(spent))
    node = parent.add("  ".join(filter(None, words)))
    if state == "Pending":
        return
    for attempt in (told.get("attempts") or [])[-ATTEMPTS:]:
        attempts(node, attempt, told, style, now)
    for kind, key in (("checkpoint", "checkpoint"), ("result", "result")):
        if isinstance(made := told.get(key), dict):
            node.add(f"{kind}  {clean(made.get('uri'))}  {style.dim('step ' + clean(made.get('step', 0)))}")
    for notice in told.get("notices") or []:
        node.add(style.paint(f"{clean(notice.get('reason'))}: {clean(notice.get('message'))}", "33"))


def attempts(parent: Tree, told: Manifest, stage_told: Manifest, style: Style, now: datetime) -> None:
    ended = bool(told.get("endTime"))
    spent = seconds_between(told.get("startTime"), told.get("endTime"), now)
    words = [f"attempt {clean(told.get('number'))}", clean(told.get("reason") or ("" if ended else "under way"))]
    words += [duration(spent)] if spent is not None else []
    node = parent.add("  ".join(filter(None, words)))
    if message := told.get("message"):
        node.add(clean(message))
    if not ended:
        for worker in stage_told.get("workers") or []:
            node.add(
                f"rank {clean(worker.get('rank'))}  {clean(worker.get('pod'))}  {style.dim(clean(worker.get('node')))}"
            )
        if left := stage_told.get("workersLeftOut"):
            node.add(f"and {clean(left)} pods more")


def figures(progress: Manifest) -> list[str]:
    """Of a stage under way: a bar, and what rank 0 told."""
    steps, step = number(progress.get("steps")), number(progress.get("step"))
    words = [f"{bar(step / steps)} {step:.0f}/{steps:.0f} {100 * step / steps:.0f}%"] if steps else []
    if progress.get("phase") not in (None, "", "Training"):
        words.append(clean(progress["phase"]))
    if progress.get("loss") is not None:
        words.append(f"loss {clean(progress['loss'])}")
    if progress.get("tokensPerSecond"):
        words.append(f"{amount(number(progress['tokensPerSecond']))} tokens/s")
    if progress.get("etaSeconds") is not None:
        words.append(f"ETA {duration(number(progress['etaSeconds']))}")
    return words


def serving(manifest: Manifest, style: Style, _now: datetime) -> Tree:
    status = manifest.get("status") or {}
    found = server("serving", manifest, style)
    if isinstance(model := status.get("model"), dict):
        found.add(f"model  {clean(model.get('uri'))}{step_of(model, style)}")
    if isinstance(began := status.get("startup"), dict):
        startup(found, began)
    for adapter in status.get("adapters") or []:
        where = f"  {clean(adapter['uri'])}{step_of(adapter, style)}" if adapter.get("uri") else ""
        node = found.add(f"adapter {clean(adapter.get('name'))}  {style.word(clean(adapter.get('state')))}{where}")
        if adapter.get("state") != "Serving" and adapter.get("message"):
            node.add(clean(adapter["message"]))
    if why := cause(status, ("Ready",)):
        found.add(why)
    return found


def startup(parent: Tree, told: Manifest) -> None:
    """How long the newest pod took to answer; of what it spent, what is known."""
    parts = [(word, told.get(f"{field}Seconds")) for field, word in STARTUP.items()]
    known = ", ".join(f"{word} {number(seconds):.1f} s" for word, seconds in parts if seconds is not None)
    total = f"started  in {number(told.get('totalSeconds')):.1f} s"
    parent.add("  ".join(filter(None, (total, known))))


def server(word: str, manifest: Manifest, style: Style) -> Tree:
    """The line of what has pods that answer."""
    status, spec = manifest.get("status") or {}, manifest.get("spec") or {}
    ready = f"{clean(status.get('readyReplicas', 0))}/{clean(spec.get('replicas', 1))} ready"
    phase = style.word(clean(status.get("phase") or "Pending"))
    words = (f"{word} {manifest['metadata']['name']}", phase, ready, clean(status.get("url") or ""))
    return Tree("  ".join(filter(None, words)))


def app(manifest: Manifest, style: Style, _now: datetime) -> Tree:
    status, found = manifest.get("status") or {}, server("app", manifest, style)
    if isinstance(model := status.get("model"), dict):
        found.add(f"model  {clean(model.get('name'))}  {style.dim(clean(model.get('url')))}")
    for base in status.get("knowledge") or []:
        knowledge(found, base, style)
    if isinstance(asked := status.get("evaluation"), dict):
        evaluation(found, asked, style)
    if why := cause(status, ("Ready",)):
        found.add(why)
    elif not status:
        found.add(UNSEEN)
    return found


def knowledge(parent: Tree, told: Manifest, style: Style) -> None:
    counts = [f"{clean(told[field])} {field}" for field in ("documents", "chunks") if told.get(field) is not None]
    reason = clean(told.get("reason"))
    node = parent.add(
        "  ".join((f"knowledge {clean(told.get('name'))}", style.word(reason), ", ".join(counts))).rstrip()
    )
    if reason != "Indexed" and told.get("message"):
        node.add(clean(told["message"]))


def evaluation(parent: Tree, told: Manifest, style: Style) -> None:
    scores = [one for one in told.get("scores") or [] if isinstance(one, dict)]
    values = ", ".join(f"{clean(one.get('metric'))} {number(one.get('value')):.3f}" for one in scores)
    asked = f"{clean(told['questions'])} questions" if told.get("questions") is not None else ""
    reason = clean(told.get("reason"))
    node = parent.add("  ".join(filter(None, ("evaluation", style.word(reason), asked, values))))
    if (reason != "Evaluated" or told.get("failed")) and told.get("message"):
        node.add(clean(told["message"]))
    if told.get("report"):
        node.add(f"report  {clean(told['report'])}")


def step_of(made: Manifest, style: Style) -> str:
    return "  " + style.dim(f"step {clean(made['step'])}") if made.get("step") is not None else ""


def cause(status: Manifest, kinds: tuple[str, ...]) -> str:
    """What the conditions say: of a spec that isn't accepted first, then of the first kind that says anything."""
    conditions = {one.get("type"): one for one in status.get("conditions") or [] if isinstance(one, dict)}
    told = []
    accepted = conditions.get("Accepted") or {}
    if accepted.get("status") == "False":
        told.append(accepted)
    told += [conditions[kind] for kind in kinds if kind in conditions][:1]
    return "; ".join(f"{clean(one.get('reason'))}: {clean(one.get('message'))}" for one in told if one.get("message"))


def number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
