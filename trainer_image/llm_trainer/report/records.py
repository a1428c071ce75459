"""What a run folder tells of its training, read for the report. Nothing here may fail for what a folder holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llm_trainer.checkpoint.record import RECORD, StageRecord
from llm_trainer.data.manifest import DataManifest
from llm_trainer.data.manifest import read_manifest as read_data_manifest
from llm_trainer.report.curves import Curve
from llm_trainer.runtime.history import HISTORY

READ_ROWS = 20_000  # of one stage's steps; of more only every second, third, … is read
CURVES = 24  # of figures beside loss, rate, norm and speed; and as many of held-out ones
MARKS, SAMPLES, ATTEMPTS = 50, 6, 100
TRIALS, SHOWN_TRIALS = 4, 1000  # tables of them, and lines
OWN = {"loss": "loss", "learningRate": "learning rate", "gradNorm": "gradient norm", "tokensPerSecond": "tokens/s"}
ALWAYS = ('"evaluation"', '"action"', '"samples"', '"spent"', '"scores"', '"gate"', '"tune"')  # rows that are no steps


@dataclass
class Attempt:
    """Times in seconds since the epoch; None where a trainer of before has told less."""

    began: float | None = None
    ended: float | None = None
    spent: dict[str, float] = field(default_factory=dict)  # seconds by phase


@dataclass
class StageRun:
    """One stage as its folder tells it."""

    name: str
    record: StageRecord
    curves: dict[str, Curve] = field(default_factory=dict)
    held_out: dict[str, Curve] = field(default_factory=dict)
    newest: dict[str, float] = field(default_factory=dict)  # the newest held-out figures
    scores: dict[str, Any] = field(default_factory=dict)  # of tasks
    samples: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)  # step, prompts with answers
    marks: list[tuple[int, str]] = field(default_factory=list)
    trials: list[tuple[str, dict[str, list[float]]]] = field(default_factory=list)  # what was chosen, by which figures
    attempts: dict[int, Attempt] = field(default_factory=dict)
    lost_steps: int = 0
    lost_seconds: float = 0.0
    read_each: int = 1  # so many steps for one that was read

    @property
    def kind(self) -> str:
        known = self.record.config
        kinds = ("prepareData", "pretrain", "sft", "rewardModel", "dpo", "kto", "ppo", "grpo")
        return next((kind for kind in kinds if known.get(kind) is not None), "")

    @property
    def began(self) -> float:
        times = [one.began or one.ended for one in self.attempts.values()]
        return min((time for time in times if time), default=self.record.end.heartbeat if self.record.end else 0.0)

    @property
    def devices(self) -> int:
        """GPUs that an attempt holds."""
        config = self.record.config
        if config.get("device") != "cuda":
            return 0
        return int(number(config.get("nodes"), 1) * number(config.get("processesPerNode"), 1))


@dataclass
class RunRecords:
    stages: list[StageRun] = field(default_factory=list)  # in the order in which they began
    data: DataManifest | None = None


def read_run(folder: Path) -> RunRecords:
    found = [stage for each in sorted((folder / "stages").glob(f"*/{RECORD}")) if (stage := read_stage(each.parent))]
    found.sort(key=lambda stage: (stage.kind != "prepareData", stage.began))
    try:
        data = read_data_manifest(folder / "data")
    except (OSError, ValueError):
        data = None
    return RunRecords(found, data)


def read_stage(folder: Path) -> StageRun | None:
    try:
        record = StageRecord.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    stage = StageRun(folder.name, record)
    for row in rows(folder / HISTORY, stage):
        see(stage, row)
    return stage


def rows(file: Path, stage: StageRun) -> Iterator[dict[str, Any]]:
    """All that are no steps, and of the steps as many as are worth reading."""
    try:
        with file.open(errors="replace") as lines:
            stage.read_each = max(1, math.ceil(sum(1 for _ in lines) / READ_ROWS))
        with file.open(errors="replace") as lines:
            for at, line in enumerate(lines):
                if at % stage.read_each and not any(word in line for word in ALWAYS):
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue  # cut off by a crash
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    yield row
    except OSError:
        return


def see(stage: StageRun, row: dict[str, Any]) -> None:
    step = row["step"]
    see_time(stage, row)
    for name, shown in OWN.items():
        if name in row:
            stage.curves.setdefault(shown, Curve()).see(step, number(row[name]))
    for name, value in members(row.get("figures")):
        if name in stage.curves or len(stage.curves) < CURVES + len(OWN):
            stage.curves.setdefault(name, Curve()).see(step, number(value))
    for name, value in members(row.get("evaluation")):
        if name in stage.held_out or len(stage.held_out) < CURVES:
            stage.held_out.setdefault(name, Curve()).see(step, number(value))
            stage.newest[name] = number(value)
    if "action" in row:
        mark(stage, step, f"{row['action']}: {row.get('message', '')}")
    if columns := dict(trial_columns(row.get("tune"))):
        stage.trials = [*stage.trials, (str(row.get("message", "")), columns)][-TRIALS:]
    stage.scores.update(scores(row.get("scores")))
    missed_thresholds = dict(members(row.get("gate"))).get("missed")
    for missed in missed_thresholds if isinstance(missed_thresholds, list) else []:
        mark(stage, step, f"the evaluation's gate: {missed}")
    if isinstance(row.get("samples"), list):
        answers = [(str(one.get("prompt")), str(one.get("answer"))) for one in row["samples"] if isinstance(one, dict)]
        stage.samples.append((step, answers))
        if len(stage.samples) > SAMPLES:
            del stage.samples[1]  # the first one shows where it began


def trial_columns(told: object) -> Iterator[tuple[str, list[float]]]:
    """By name, each of a figure for each trial."""
    for name, values in members(told):
        if isinstance(values, list):
            yield name, [number(value) for value in values[:SHOWN_TRIALS]]


def scores(told: object) -> dict[str, Any]:
    """By task and metric: a list of what each says, or the values themselves."""
    found = dict(members(told))
    for one in told if isinstance(told, list) else []:
        if isinstance(one, dict):
            error = f" ± {number(one['stderr']):.2g}" if one.get("stderr") is not None else ""
            found[f"{one.get('task')}/{one.get('metric')}"[:160]] = f"{number(one.get('value')):.4g}{error}"
    return dict(list(found.items())[:CURVES])


def see_time(stage: StageRun, row: dict[str, Any]) -> None:
    own, lost = row.get("attempt"), row.get("lost")
    again = ""
    if isinstance(lost, dict):
        stage.lost_steps += int(number(lost.get("steps"), 0))
        stage.lost_seconds += number(lost.get("seconds"), 0)
        again = f"; {int(number(lost.get('steps'), 0)):,} steps are made again"
        before = lost.get("attempts")
        for one in before if isinstance(before, list) else []:
            if isinstance(one, dict) and isinstance(one.get("attempt"), int):
                keep_time(stage, one["attempt"], one)
    if not isinstance(own, int):
        return
    begins = own not in stage.attempts
    keep_time(stage, own, row)
    if begins and len(stage.attempts) > 1:
        mark(stage, row["step"], f"attempt {own} begins{again}")


def keep_time(stage: StageRun, number_of_it: int, told: dict[str, Any]) -> None:
    if number_of_it not in stage.attempts and len(stage.attempts) == ATTEMPTS:
        return
    attempt = stage.attempts.setdefault(number_of_it, Attempt())
    if "began" in told:
        attempt.began = number(told["began"], 0)
    if "time" in told:
        attempt.ended = max(attempt.ended or 0.0, number(told["time"], 0))
    if spent := dict(members(told.get("spent"))):
        attempt.spent = {phase: number(seconds, 0) for phase, seconds in spent.items()}


def mark(stage: StageRun, step: int, told: str) -> None:
    if len(stage.marks) < MARKS and (step, told) not in stage.marks:
        stage.marks.append((step, told[:200]))


def members(value: object) -> Iterator[tuple[str, Any]]:
    return iter((str(name)[:80], each) for name, each in value.items()) if isinstance(value, dict) else iter(())


def number(value: object, otherwise: float = math.nan) -> float:
    """Texts too: those that stand for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return otherwise
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return otherwise
    return found if math.isfinite(found) or math.isnan(otherwise) else otherwise
