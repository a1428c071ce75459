"""What each tracker is told, by its own library. Only a tracker's process imports one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from llm_trainer.tracking.follow import Row, figures

MLFLOW_BATCH = 1000  # metrics of a request, the most that a server takes
ROW_BYTES = 4096  # more than W&B keeps of a row


class Sink(Protocol):
    """Raises whatever its library does; then it is asked again, from the rows that it has not taken."""

    def tell(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


class TensorBoardSink:
    """Event files in the run folder, a run for each stage."""

    def __init__(self, asked: Row) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._events, self._summaries = event_pb2, summary_pb2
        folder = Path(asked["folder"]) / "tensorboard" / asked["stage"]
        self._writer = EventFileWriter(str(folder))
        self._begun = False

    def tell(self, rows: list[Row]) -> None:
        for row in rows:
            if not self._begun:  # TensorBoard forgets what an attempt before told of later steps
                started = self._events.SessionLog(status=self._events.SessionLog.START)
                first = row["step"] + 1 if row["step"] and "loss" not in row else row["step"]
                self._add({**row, "step": first}, session_log=started)
                self._begun = True
            values = [self._summaries.Summary.Value(tag=name, simple_value=v) for name, v in figures(row).items()]
            if values:
                self._add(row, summary=self._summaries.Summary(value=values))
        self._writer.flush()

    def _add(self, row: Row, **what: Any) -> None:
        self._writer.add_event(self._events.Event(step=row["step"], wall_time=row["time"], **what))

    def close(self) -> None:
        self._writer.close()


class MlflowSink:
    """A run for each stage; attempts of one stage go on with the same run, whose id is kept in the run folder."""

    def __init__(self, asked: Row) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, settings = Metric, asked["settings"]
        self._parameters: list[Any] = []  # still to be told
        self._client = MlflowClient(settings["uri"])
        kept = Path(asked["folder"]) / "tracking" / f"mlflow-{asked['stage']}.json"
        self._run = self._known(kept, settings["uri"])
        if self._run is None:
            name = settings.get("experiment") or f"{asked['namespace']}/{asked['training']}"
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            tags = {f"llm-operator/{key}": str(asked[key]) for key in ("namespace", "training", "uid", "stage")}
            self._run = self._client.create_run(experiment, run_name=asked["stage"], tags=tags).info.run_id
            self._parameters = [Param(key, str(value)) for key, value in asked["parameters"].items()]
            # At once, and whatever becomes of it: what fails is tried again, and would make one more run each time.
            with suppress(OSError):  # of a full volume; the next attempt has a run of its own then
                kept.parent.mkdir(exist_ok=True)
                kept.write_text(json.dumps({"uri": settings["uri"], "run": self._run}))

    def _known(self, kept: Path, uri: str) -> str | None:
        """That of an attempt before, if the server has it still."""
        try:
            told = json.loads(kept.read_text())
            run: str = told["run"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if told.get("uri") != uri:
            return None
        self._client.update_run(run, status="RUNNING")
        return run

    def tell(self, rows: list[Row]) -> None:
        if self._parameters:
            self._client.log_batch(self._run, params=self._parameters)
            self._parameters = []
        found = [
            self._metric(key(name), value, round(row["time"] * 1000), row["step"])
            for row in rows
            for name, value in figures(row).items()
        ]
        for first in range(0, len(found), MLFLOW_BATCH):
            self._client.log_batch(self._run, metrics=found[first : first + MLFLOW_BATCH])

    def close(self) -> None:
        self._client.set_terminated(self._run)


def key(name: str) -> str:
    """MLflow takes these characters alone."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in name).strip("/") or "_"


class WandbSink:
    """A run for each stage, with the steps of the training as its axis; offline without a key."""

    def __init__(self, asked: Row) -> None:
        import wandb

        settings = asked["settings"]
        if settings.get("uri"):
            os.environ["WANDB_BASE_URL"] = settings["uri"]
        self._folder = folder = Path(asked["folder"]) / "wandb"
        folder.mkdir(exist_ok=True)
        self._look_for_room(1)
        offline = not os.environ.get("WANDB_API_KEY")
        self._run = wandb.init(
            project=settings["project"], entity=settings.get("entity"), dir=str(folder), name=asked["stage"],
            id=f"{asked['uid'][:8]}-{asked['stage']}", resume=None if offline else "allow",
            group=f"{asked['namespace']}/{asked['training']}", config=asked["parameters"],
            mode="offline" if offline else "online",
            settings=wandb.Settings(init_timeout=30, x_disable_stats=True, disable_git=True, disable_code=True),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def _look_for_room(self, rows: int) -> None:
        """Raises OSError on a full volume: W&B, whose files are there, would lose what it is told in silence."""
        probe = self._folder / ".room"
        try:
            probe.write_bytes(bytes(rows * ROW_BYTES))
        finally:
            probe.unlink(missing_ok=True)

    def tell(self, rows: list[Row]) -> None:
        self._look_for_room(len(rows))
        for row in rows:
            if found := figures(row):
                self._run.log({"step": row["step"], **found})

    def close(self) -> None:
        self._run.finish()


SINKS: dict[str, Callable[[Row], Sink]] = {
    "tensorboard": TensorBoardSink,
    "mlflow": MlflowSink,
    "wandb": WandbSink,
}
