"""The report of a run as blocks, from what its folder tells. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any

from pydantic import ValidationError

from llm_trainer.config import StageConfig
from llm_trainer.data.manifest import DataManifest
from llm_trainer.protocol import Result
from llm_trainer.report.blocks import Block, Heading, Paragraph, Plots, Table, Verbatim
from llm_trainer.report.records import RunRecords, StageRun
from llm_trainer.report.times import KINDS, LOST, UNKNOWN, WAITING, StageTime, times, words

SETTINGS, VALUE = 60, 200  # lines of a stage's settings, and characters of one
SHOWN_CURVES = 16  # of a stage
SOURCES, PROMPT, ANSWER = 100, 600, 2000
# What the operator fills in, and what the report tells elsewhere.
NOT_ASKED = ("training", "namespace", "uid", "stage", "attempt", "runUri", "volumesRoot", "patienceSeconds", "resumes",
             "results", "digests")  # fmt: skip


def title(run: RunRecords) -> str:
    config = run.stages[-1].record.config if run.stages else {}
    return f"Training {config.get('namespace', '')}/{config.get('training', '')}"


def blocks(run: RunRecords, problem: str = "") -> Iterator[Block]:
    """`problem`: how the attempt ended that writes this, if it failed."""
    if problem:
        yield Paragraph(f"Failed: {problem}")
    spent = times(run.stages)
    yield from overview(run, spent)
    if run.data:
        yield from data(run.data)
    for stage in run.stages:
        if stage.kind != "prepareData":
            yield from results(stage)
    yield from time_table(spent)
    yield from lineage(run)
    yield from serving(run)
    yield from asked(run)


def overview(run: RunRecords, spent: list[StageTime]) -> Iterator[Block]:
    if not run.stages:
        yield Paragraph("No stage has begun.")
        return
    rows = []
    for stage, time in zip(run.stages, spent, strict=True):
        end = stage.record.end
        loss = stage.curves.get("loss")
        told = next(iter(loss.known[-1:]), None) if loss else None
        rows.append((
            stage.name, stage.kind, "has its result" if end else "goes on, or ended without one",
            end.step if end else (told.last if told else 0), f"{told.mean:.4g}" if told else "",
            len(stage.attempts) or "", words(time.held),
        ))  # fmt: skip
    yield Table(("stage", "kind", "state", "step", "loss", "attempts", "time"), rows)
    yield Paragraph("Stages that haven't begun aren't here. It is written anew at evaluations and when a stage ends.")


def data(manifest: DataManifest) -> Iterator[Block]:
    yield Heading("Data")
    total = max(1, sum(shard.tokens for shard in manifest.shards))
    rows = []
    for source in manifest.sources[:SOURCES]:
        tokens = manifest.source_tokens(source.name)
        dropped = source.duplicates + source.invalid + source.empty + source.filtered
        rows.append((source.name, source.domain, source.language, source.license, source.documents, tokens,
                     f"{tokens / total:.1%}", dropped))  # fmt: skip
    yield Table(("source", "domain", "language", "license", "documents", "tokens", "share", "dropped"), rows)
    if len(manifest.sources) > SOURCES:
        yield Paragraph(f"And {len(manifest.sources) - SOURCES} sources more.")
    for kind in ("domain", "language"):
        by: dict[str, int] = {}
        for shard in manifest.shards:
            by[getattr(shard, kind)] = by.get(getattr(shard, kind), 0) + shard.tokens
        if len(by) > 1:
            sizes = sorted(by.items(), key=lambda item: -item[1])[:SOURCES]
            yield Table((kind, "tokens", "share"), [(name, n, f"{n / total:.1%}") for name, n in sizes])
    reasons = {
        "duplicate": sum(source.duplicates for source in manifest.sources),
        "notUtf8": sum(source.invalid for source in manifest.sources),
        "empty": sum(source.empty for source in manifest.sources),
        **(manifest.quality.dropped if manifest.quality else {}),
    }
    if dropped_rows := [(reason, count) for reason, count in islice(reasons.items(), SOURCES) if count]:
        yield Table(("dropped because", "documents"), dropped_rows)


def results(stage: StageRun) -> Iterator[Block]:
    yield Heading(f"Stage {stage.name}")
    curves = dict(islice(stage.curves.items(), SHOWN_CURVES))
    if curves:
        yield Plots(curves, stage.marks)
    if stage.read_each > 1:
        yield Paragraph(f"Of the steps every {stage.read_each}th is drawn.")
    if left := len(stage.curves) - len(curves):
        yield Paragraph(f"{left} figures more are in history.jsonl.")
    if stage.marks:
        yield Table(("step", "what happened"), stage.marks, words=True)
    for told, columns in stage.trials:
        yield Heading("Trials before the first step", 3)
        yield Paragraph(told)
        lines = zip_longest(*(map(rounded, values) for values in columns.values()), fillvalue="")
        yield Table([*columns], [*lines])
    if stage.held_out:
        yield Heading("Held out", 3)
        yield Plots({f"held-out {name}": curve for name, curve in islice(stage.held_out.items(), SHOWN_CURVES)},
                    stage.marks)  # fmt: skip
        yield Table(("figure", "newest"), [(name, f"{value:.4g}") for name, value in stage.newest.items()])
    if stage.scores:
        yield Heading("Scores", 3)
        yield Table(("task", "score"), [(name, shortened(value)) for name, value in islice(stage.scores.items(), 100)])
    if stage.samples:
        yield Heading("The model's own answers", 3)
        for step, answers in stage.samples:
            told = "\n\n".join(f"{prompt[:PROMPT]}\n→ {answer[:ANSWER]}" for prompt, answer in answers[:20])
            yield Verbatim(told, f"at step {step:,}", folded=step != stage.samples[-1][0])
    if stage.record.end and stage.record.end.notices:
        yield Table(("notice", ""), [(n.reason, n.message) for n in stage.record.end.notices], words=True)


def time_table(spent: list[StageTime]) -> Iterator[Block]:
    if not any(time.held for time in spent):
        return
    yield Heading("Time and cost")
    kinds = [kind for kind in (WAITING, *KINDS, LOST, UNKNOWN) if any(time.seconds[kind] for time in spent)]
    rows = [
        (time.stage, *(words(time.seconds[kind]) for kind in kinds), f"{time.goodput:.0%}", f"{time.gpu_seconds:,.0f}")
        for time in spent
    ]
    if len(spent) > 1:
        held = sum(time.held for time in spent) or 1.0
        rows.append((
            "all", *(words(sum(time.seconds[kind] for time in spent)) for kind in kinds),
            f"{sum(time.goodput * time.held for time in spent) / held:.0%}",
            f"{sum(time.gpu_seconds for time in spent):,.0f}",
        ))  # fmt: skip
    yield Table(("stage", *kinds, "goodput", "GPU seconds"), rows)
    yield Paragraph(
        "Waiting is without pods. Made again is work that a restart cost. Goodput is the share of the time with pods "
        "that is in the result."
    )


def lineage(run: RunRecords) -> Iterator[Block]:
    rows = []
    for stage in run.stages:
        result = result_of(stage)
        made = ", ".join(f"{name} {digest}" for name, digest in stage.record.digests.items())
        config = stage.record.config
        start = (config.get("model") or {}).get("uri") if isinstance(config.get("model"), dict) else None
        rows.append((stage.name, result.uri if result else "", result.digest if result else "",
                     result.base or "" if result else "", start or "", made))  # fmt: skip
    if rows:
        yield Heading("Lineage")
        yield Table(("stage", "result", "digest", "base", "starts from", "made from"), rows, words=True)


def serving(run: RunRecords) -> Iterator[Block]:
    made = [(stage, result) for stage in run.stages if (result := result_of(stage))]
    models = [stage for stage, result in made if result.kind == "model"]
    adapters = [stage for stage, result in made if result.kind == "adapter"]
    if not models and not adapters:
        return
    chosen = models[-1] if models else None
    config = (chosen or adapters[-1]).record.config
    training, namespace = config.get("training"), config.get("namespace")
    own = f"training: {{name: {training}, stage: {chosen.name}}}" if chosen else "uri: pvc://CLAIM/BASE-MODEL"
    lines = ["apiVersion: llm-operator.io/v1alpha1", "kind: LLMServing",
             f"metadata: {{name: {training}, namespace: {namespace}}}", "spec:", f"  model: {{{own}}}"]  # fmt: skip
    if adapters:
        lines.append("  adapters:")
        lines += [f"  - {{name: {s.name}, training: {{name: {training}, stage: {s.name}}}}}" for s in adapters]
    yield Heading("How to serve it")
    yield Verbatim("\n".join(lines), "kubectl apply -f - with this, and resources as the model needs:")


def asked(run: RunRecords) -> Iterator[Block]:
    yield Heading("What was asked")
    yield Paragraph("Settings that are not the defaults, fully resolved.")
    for stage in run.stages:
        lines = list(flat(set_fields(stage.record.config)))
        told = "\n".join(f"{path}: {shortened(value)}" for path, value in lines[:SETTINGS])
        if len(lines) > SETTINGS:
            told += f"\nand {len(lines) - SETTINGS} more in stages/{stage.name}/record.json"
        yield Verbatim(told, f"stage {stage.name}", folded=True)


def result_of(stage: StageRun) -> Result | None:
    return stage.record.end.result if stage.record.end else None


def set_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Without defaults, if this trainer can read the configuration."""
    try:
        known = StageConfig.model_validate(config).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    except ValidationError:
        known = config
    return {name: value for name, value in known.items() if name not in NOT_ASKED}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from flat(each, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for at, each in enumerate(value):
            yield from flat(each, f"{path}[{at}]")
    elif value is not None:
        yield path, value


def shortened(value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return said if len(said) <= VALUE else said[: VALUE - 1] + "…"


def rounded(value: float) -> str:
    """Whole numbers from a thousand on, else four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
