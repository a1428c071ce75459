"""spec.tracking by the trackers' own libraries, in processes as rank 0 starts them; read back by their own readers."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llm_trainer.config import StageConfig
from llm_trainer.runtime.history import HISTORY, History
from llm_trainer.runtime.progress import Board
from llm_trainer.tracking import follow
from llm_trainer.tracking.start import Trackers, asked, environment
from tests.cluster.control_plane import free_ports
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY

Configure = Callable[..., StageConfig]
SERVER_SECONDS = 600.0  # for a server that makes its tables
SECONDS = 120.0  # for a library to be imported by a process that everybody else goes before


@pytest.fixture(scope="session")
def libraries() -> Path:
    script = REPOSITORY / "tools" / "libraries.sh"
    return Path(subprocess.run([script, "trackers"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


def configured(root: object, *tracking: dict[str, Any], attempt: int = 1) -> StageConfig:
    return StageConfig.model_validate({
        "training": "chat", "namespace": "team", "uid": "0123456789", "stage": "base", "attempt": attempt,
        "nodes": 1, "processesPerNode": 1, "device": "cpu", "volumesRoot": str(root),
        "runUri": "pvc://models/run", "pretrain": {"sequenceLength": 64, "steps": 10}, "tracking": tracking,
    })  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path, libraries: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    monkeypatch.setenv("LLM_TRACKERS", str(libraries))

    def make(*tracking: dict[str, Any], attempt: int = 1) -> StageConfig:
        config = configured(tmp_path, *tracking, attempt=attempt)
        Path(config.stage_folder).mkdir(parents=True, exist_ok=True)
        return config

    return make


def history(config: StageConfig) -> History:
    return History(Path(config.stage_folder) / HISTORY, config.attempt)


def steps(config: StageConfig, first: int, last: int) -> None:
    for step in range(first, last + 1):
        history(config).append(step, loss=1 / step, learningRate=1e-3, figures={"kl": 0.5})


def read(libraries: Path, script: str, *arguments: object) -> Any:
    """What a script prints as JSON, run with the trackers' libraries."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(libraries)}, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


READ_EVENTS = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
"""


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
READ_WANDB = """
import json, sys
from wandb.proto import wandb_internal_pb2
data, at, whole, found = open(sys.argv[1], "rb").read(), 7, b"", []
while at + 7 <= len(data):
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768  # a block's end has no room for a header
        continue
    length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
    whole += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # full, last
        record, whole = wandb_internal_pb2.Record.FromString(whole), b""
        if record.HasField("history"):
            items = record.history.item
            found.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
print(json.dumps(found))
"""


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


class Refusing:
    """Answers every connection in a way of its own, or not at all."""

    def __init__(self, answer: bytes | None, pause: float = 0.0) -> None:
        self.answer, self.pause = answer, pause  # seconds between two bytes
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()
        self.held: list[socket.socket] = []

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.held.append(connection)
            if self.answer is not None:
                connection.recv(65536)
                self._say(connection, self.answer)
                connection.close()

    def _say(self, connection: socket.socket, answer: bytes) -> None:
        if not self.pause:
            connection.sendall(answer)
            return
        with suppress(OSError):  # of who has gone
            for byte in answer:
                connection.sendall(bytes([byte]))
                time.sleep(self.pause)


ANSWERS = {
    "away": None,  # nobody listens
    "silent": None,  # takes the connection, and says nothing
    "refusing": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "full": b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "no server of MLflow": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>",
}


@pytest.fixture(params=["away", "silent", *(pytest.param(name, marks=pytest.mark.release) for name in [*ANSWERS][2:])])
def bad_server(request: pytest.FixtureRequest) -> Iterator[str]:
    server = Refusing(ANSWERS[request.param])
    if request.param == "away":
        server.listener.close()
    yield server.uri
    server.listener.close()


def test_a_bad_server_is_one_notice_and_keeps_nobody_waiting(
    stage: Configure, bad_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")  # what a user sets counts; ours is 10
    board = Board("base", 1)
    config = stage({"mlflow": {"uri": bad_server}})
    began = time.monotonic()
    trackers = Trackers(config, board)
    steps(config, 1, 200)
    assert time.monotonic() - began < 20, "nobody waits for it"
    wait("the notice", lambda: board.progress.notices != [], SECONDS)
    began = time.monotonic()
    trackers.end(5)
    assert time.monotonic() - began < 15
    (notice,) = board.progress.notices
    assert notice.reason == "TrackerFailed"
    assert "spec.tracking[0].mlflow" in notice.message
    assert "the training goes on" in notice.message


# As follow.main(), with what takes time imported before: a server is asked when it begins to count.
IMPATIENT = """
from mlflow import MlflowClient
from llm_trainer.tracking import follow
follow.SLOW_SECONDS = 2
follow.main()
"""


@pytest.mark.release  # imports mlflow once more
def test_a_server_whose_answer_never_ends_is_told(stage: Configure) -> None:
    """A byte at a time: no library's timeout sees it, as it waits for each byte anew."""
    server = Refusing(b"HTTP/1.1 200 OK\r\nX-Never: " + b"x" * 10_000, pause=0.2)
    config = stage({"mlflow": {"uri": server.uri}})
    (tracker,) = config.tracking
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(tracker, 0),
    )  # fmt: skip
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(asked(config, tracker)) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "what it is told is not taken, for 2 s now\n"
    finally:
        process.kill()
        process.communicate()
        server.listener.close()


class Half(BaseHTTPRequestHandler):
    """A server of MLflow that makes runs and has no room for what they tell."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.tell(200, {"experiment": {"experiment_id": "1", "name": "team/chat", "lifecycle_stage": "active"}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        what = self.path.rpartition("/")[2]
        self.asked.append(what)
        run = {"info": {"run_id": "r1", "experiment_id": "1", "status": "RUNNING"}, "data": {}}
        self.tell(*((200, {"run": run}) if what == "create" else (507, {"message": "no room"})))

    def tell(self, status: int, body: object) -> None:
        self.send_response(status)
        text = json.dumps(body).encode()
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.mark.release  # imports mlflow once more
def test_what_is_refused_makes_one_run_however_often_it_is_tried(stage: Configure) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Half)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Half.asked.clear()
    board, config = Board("base", 1), stage({"mlflow": {"uri": f"http://127.0.0.1:{server.server_port}"}})
    trackers = Trackers(config, board)
    steps(config, 1, 3)
    try:
        wait("it is tried again", lambda: Half.asked.count("log-batch") > 2, SECONDS)
    finally:
        trackers.end(0)
        server.shutdown()
        server.server_close()
    assert Half.asked.count("create") == 1, Half.asked
    assert "no room" in board.progress.notices[0].message


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


def test_no_row_is_told_twice_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    """As a rollback writes it anew while it is read."""
    file = tmp_path / "history.jsonl"
    writer, reader = History(file, 1), follow.History(file, 1)
    assert reader.rows() == []
    for step in range(1, 6):
        writer.append(step, loss=1.0)
        time.sleep(0.002)
    with file.open("a") as stream:
        stream.write('{"step": 6, "ti')  # is being written
    assert [row["step"] for row in reader.rows()] == [1, 2, 3, 4, 5]
    writer.cut_after(3)
    writer.append(4, loss=2.0)
    assert [row["loss"] for row in reader.rows()] == [2.0]
    History(file, 2).append(5, loss=3.0)
    assert reader.rows() == [], "another attempt's tracker tells it"
    file.unlink()
    assert reader.rows() == []


def test_what_is_told_of_a_row() -> None:
    row: dict[str, Any] = {
        "step": 1, "loss": "NaN", "applied": True, "figures": {"kl": 1, "bad": None, "x": [1]},
        "evaluation": {"loss": 2}, "samples": [], "spent": 3,
        "scores": [{"task": "tiny", "metric": "acc", "value": 0.5}, "junk"],
    }  # fmt: skip
    told = follow.figures(row)
    assert math.isnan(told.pop("loss"))
    assert told == {"kl": 1, "heldOut/loss": 2, "score/tiny/acc": 0.5}


def test_a_reader_that_is_far_behind_takes_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MOST_BYTES", 1000)
    file = tmp_path / "history.jsonl"
    file.write_text("".join(json.dumps({"step": n, "time": n + 1, "attempt": 1, "loss": 1}) + "\n" for n in range(999)))
    reader = follow.History(file, 1)
    found = reader.rows()
    assert found[-1]["step"] == 998
    assert len(found) < 30
    assert reader.left_out
