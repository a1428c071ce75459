"""spec.tracking by the trackers' own libraries, in processes as rank 0 starts them; read back by their own readers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.runtime.progress import Board
from llm_trainer.tracking.start import Trackers
from tests.cluster.control_plane import free_ports
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY
from tests.monitoring.trackers import (
    READ_EVENTS,
    READ_WANDB,
    SECONDS,
    SERVER_SECONDS,
    Configure,
    history,
    libraries,
    read,
    stage,
    steps,
)

__all__ = ["libraries", "stage"]


def test_tensorboard(stage: Configure, libraries: Path, tmp_path: Path) -> None:
    """Steps that a second attempt makes again take the place of those of the first."""
    folder = tmp_path / "models" / "run" / "tensorboard" / "base"
    config = stage({"tensorboard": {}})
    board = Board("base", 1)
    first = Trackers(config, board)
    steps(config, 1, 8)
    wait("the event file", lambda: any(file.stat().st_size > 500 for file in folder.glob("*")), SECONDS)
    first.end(SECONDS)
    second = stage({"tensorboard": {}}, attempt=2)
    history(second).begin(5, board.clock)
    again = Trackers(second, board)
    steps(second, 6, 12)
    history(second).append(12, evaluation={"loss": 0.25, "bitsPerByte/漢字": float("nan")})
    again.end(SECONDS)
    assert board.progress.notices == []
    told = read(libraries, READ_EVENTS, folder)
    assert [step for step, _ in told["loss"]] == list(range(1, 13))
    assert told["loss"][3][1] == pytest.approx(0.25)
    assert told["heldOut/loss"] == [[12, 0.25]]
    assert "heldOut/bitsPerByte/漢字" in told


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """MLflow's own, on a database of its own."""
    script = REPOSITORY / "tools" / "libraries.sh"
    folder = subprocess.run([script, "mlflow-server"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    port, log = free_ports(1), tmp_path / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": folder, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=out, stderr=out, start_new_session=True
        )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return True
        except OSError:
            return False

    try:
        wait("MLflow's server", answers, SERVER_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its workers too
        process.wait()


def mlflow(server: str, path: str, **asked: object) -> Any:
    """An answer of MLflow's REST API."""
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{path}", json.dumps(asked).encode(),
                                     {"Content-Type": "application/json"})  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def the_run(server: str) -> Any:
    """The only one of `team/chat`."""
    asked = {"max_results": 9, "filter": "name = 'team/chat'"}
    (experiment,) = mlflow(server, "experiments/search", **asked)["experiments"]
    (run,) = mlflow(server, "runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    return run


def losses(server: str, run: Any) -> dict[int, float]:
    """By step; what was told of one twice would be a row too many."""
    query = f"run_id={run['info']['run_id']}&metric_key=loss"
    with urllib.request.urlopen(f"{server}/api/2.0/mlflow/metrics/get-history?{query}", timeout=60) as answer:
        rows = json.load(answer)["metrics"]
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: row["value"] for row in rows}


@pytest.mark.release  # a server's start and two of its clients: most of a minute
def test_mlflow(stage: Configure, mlflow_server: str) -> None:
    """A second attempt goes on with the run of the first; the server has each figure at its step."""
    board, tracked = Board("base", 1), {"mlflow": {"uri": mlflow_server}}
    for attempt, first, last in ((1, 1, 5), (2, 6, 8)):
        config = stage(tracked, attempt=attempt)
        trackers = Trackers(config, board)
        steps(config, first, last)
        if attempt == 2:
            history(config).append(last, evaluation={"bitsPerByte/漢字": 0.25})
        trackers.end(SECONDS)
    assert board.progress.notices == []
    run = the_run(mlflow_server)
    assert (run["info"]["run_name"], run["info"]["status"]) == ("base", "FINISHED")
    tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
    assert tags["llm-operator/training"] == "chat"
    assert {one["key"] for one in run["data"]["params"]}, "the stage's settings"
    newest = {one["key"]: one for one in run["data"]["metrics"]}
    assert newest["loss"]["value"] == pytest.approx(1 / 8)
    assert newest["kl"]["value"] == 0.5
    (held_out,) = (one for name, one in newest.items() if name.startswith("heldOut/"))
    assert (held_out["value"], held_out["step"]) == (0.25, 8)
    assert losses(mlflow_server, run) == pytest.approx({n: 1 / n for n in range(1, 9)})


# W&B's own reader is a Go program that speaks to a server; the file is a log as LevelDB writes, of W&B's protobuf.
def test_wandb_offline(stage: Configure, libraries: Path, tmp_path: Path) -> None:
    config = stage({"wandb": {"project": "chat"}})
    board = Board("base", 1)
    trackers = Trackers(config, board)
    steps(config, 1, 5)
    trackers.end(SECONDS)
    assert board.progress.notices == []
    (file,) = (tmp_path / "models" / "run" / "wandb").glob("**/*.wandb")
    told = read(libraries, READ_WANDB, file)
    assert [row["step"] for row in told] == [1, 2, 3, 4, 5]
    assert told[3]["loss"] == 0.25


def test_an_image_without_the_libraries(stage: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_TRACKERS", str(tmp_path / "nothing"))
    board = Board("base", 1)
    trackers = Trackers(stage({"wandb": {"project": "chat"}}), board)
    trackers.end(SECONDS)
    (notice,) = board.progress.notices
    assert "TRACKERS=with" in notice.message


def test_a_tracker_that_was_killed_is_a_notice(stage: Configure) -> None:
    board = Board("base", 1)
    trackers = Trackers(stage({"tensorboard": {}}), board)
    trackers.processes[0].kill()
    trackers.end(SECONDS)
    assert [notice.reason for notice in board.progress.notices] == ["TrackerFailed"]
