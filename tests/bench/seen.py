"""What it costs to be seen, in CPU seconds: metrics and history of a step, a scrape, a report, the trackers' processes.

Beside them, in the same run, a step of the model of examples/bilingual-chat.yaml on one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import yaml
from prometheus_client import generate_latest

from llm_trainer.config import StageConfig
from llm_trainer.launch import environment, meeting_of
from llm_trainer.report.write import write_report
from llm_trainer.runtime.history import HISTORY, History
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import start
from llm_trainer.tracking.start import Trackers
from tests.bench.start import of_tree
from tests.cluster.settings import REPOSITORY
from tests.trainer.conftest import PRETRAIN, prepare, stage_config
from tests.unit.trainer_report import runs

STEPS, WARM_UP = 8, 2  # of the model
SHOWN = 5_000  # steps that are shown
SCRAPES = 200
REPORTED = (1_000, 20_000)  # steps of a stage whose report is written
SLOWLY, AT_ONCE = 30, 5_000  # rows that trackers are told: one a second, and all at once
END_SECONDS = 300.0
QUIET_SECONDS, QUIET_SHARE = 15, 0.03  # who takes less of a CPU for so long waits for rows, and not for its turn
IMPORTS_SECONDS = 0.3  # what has spent less has not begun


def main(arguments: list[str]) -> None:
    argparse.ArgumentParser(prog="python -m tests.bench seen", description=__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-seen-") as name:
        folder = Path(name)
        volumes = prepare(folder / "volumes", folder / "pods")
        reports = {steps: of_a_report(volumes, steps) for steps in REPORTED}
        trackers = of_trackers(volumes)
        step, shown, scrape = of_a_step(volumes)  # last, as its watchdog goes on
    print(f"| a step of the example's model | {step * 1e3:.0f} ms |")
    print(f"| metrics and history of a step | {shown * 1e6:.0f} µs, {shown / step:.3%} of it |")
    print(f"| a scrape | {scrape * 1e3:.2f} ms |")
    for steps, seconds in reports.items():
        print(f"| the report of a stage of {steps:,} steps | {seconds:.2f} s |")
    for kind, one in trackers.items():
        print(f"| {kind}: its start | {one.start:.1f} s |")
        print(f"| {kind}: a row each second | {one.slowly * 1e3:.1f} ms, {one.slowly / step:.2%} of the step |")
        print(f"| {kind}: one of {AT_ONCE:,} rows | {one.at_once * 1e6:.0f} µs |")


@dataclass(frozen=True)
class Tracker:
    """CPU seconds: of its start, of a row where one comes each second, and of one where many come at once."""

    start: float
    slowly: float
    at_once: float


def model() -> dict[str, object]:
    first = next(yaml.safe_load_all((REPOSITORY / "examples" / "bilingual-chat.yaml").read_text()))
    found: dict[str, object] = first["spec"]["model"]
    return found


def of_a_step(volumes: Path) -> tuple[float, float, float]:
    """CPU seconds of a step, of showing one, and of a scrape."""
    settings = {**PRETRAIN, "sequenceLength": 256, "steps": STEPS, "globalBatchSize": 16, "microBatchSize": 16}
    config = stage_config(volumes, "seen", nodes=1, model=model(), pretrain=settings)
    meeting = meeting_of(config, 0)  # holds the socket
    os.environ.update({**environment(config, 0, 0, 1), **meeting.environment()})
    from llm_trainer.stages.pretrain import Pretraining

    assert config.pretrain
    with start(config, Board(config.stage, config.attempt)) as run:
        loop = Pretraining(run, config.pretrain)
        spent = []
        for _ in range(STEPS):
            began = time.process_time()
            done = loop.make_step(1.0)
            spent.append(time.process_time() - began)
            loop.step += 1

        def show() -> None:
            loop._tell_parts(1.0)  # what the loop does after each step
            loop._show(done, 1e-3, 1.0)

        shown = seconds_of(show, SHOWN)
        scrape = seconds_of(lambda: generate_latest(run.board.metrics.registry), SCRAPES)
    return median(spent[WARM_UP:]), shown, scrape


def seconds_of(what: Callable[[], object], times: int) -> float:
    what()
    began = time.process_time()
    for _ in range(times):
        what()
    return (time.process_time() - began) / times


def of_a_report(volumes: Path, steps: int) -> float:
    folder = volumes / f"report-{steps}"
    runs.leave(folder, runs.config("base", "pretrain", {"sequenceLength": 64, "steps": steps}), runs.steps(steps))
    spent = seconds_of(lambda: write_report(folder), 3)
    assert "<svg" in (folder / "report.html").read_text()
    return spent


def tell(config: StageConfig, first: int, last: int, pause: float = 0.0) -> None:
    history = History(Path(config.stage_folder) / HISTORY, config.attempt)
    for step in range(first, last + 1):
        history.append(step, loss=1 / step, learningRate=1e-3, gradNorm=1.0, tokensPerSecond=1e4, applied=True)
        time.sleep(pause)


# --- trackers -------------------------------------------------------------------------------------------------------


def of_trackers(volumes: Path) -> dict[str, Tracker]:
    script = REPOSITORY / "tools" / "libraries.sh"
    done = subprocess.run([script, "trackers"], stdout=subprocess.PIPE, text=True, check=True)
    os.environ["LLM_TRACKERS"] = done.stdout.strip()
    with mlflow_server() as uri:
        tracking = {"tensorboard": {}, "mlflow": {"uri": uri}, "wandb": {"project": "bench"}}
        config = stage_config(volumes, "tracked", nodes=1, tracking=[{kind: each} for kind, each in tracking.items()])
        Path(config.stage_folder).mkdir(parents=True)
        return dict(zip(tracking, followed(config), strict=True))


def followed(config: StageConfig) -> list[Tracker]:
    """Each tracker's process with those that it starts."""
    board = Board(config.stage, 1)
    trackers = Trackers(config, board)
    pids = [process.pid for process in trackers.processes]
    tell(config, 1, 1)
    start = when_idle(pids)
    tell(config, 2, 1 + SLOWLY, 1.0)
    slowly = when_idle(pids)
    tell(config, 2 + SLOWLY, 1 + SLOWLY + AT_ONCE)
    at_once = when_idle(pids)
    trackers.end(END_SECONDS)
    assert board.progress.notices == [], board.progress.notices
    return [Tracker(one, (two - one) / SLOWLY, (three - two) / AT_ONCE)
            for one, two, three in zip(start, slowly, at_once, strict=True)]  # fmt: skip


def when_idle(pids: list[int]) -> list[float]:
    """CPU seconds of each, once all wait for rows. Looking each second costs them little."""
    spent = [0.0 for _ in pids]
    quiet = 0
    while quiet < QUIET_SECONDS:
        for pid in pids:
            os.setpriority(os.PRIO_PROCESS, pid, 0)  # beside other work the lowest priority would never end
        time.sleep(1)
        now = [of_tree(pid) for pid in pids]
        busy = any(after - before > QUIET_SHARE for before, after in zip(spent, now, strict=True))
        quiet = 0 if busy or min(now) < IMPORTS_SECONDS else quiet + 1
        spent = now
    return spent


class Mlflow(BaseHTTPRequestHandler):
    """Takes all: what a client spends is asked here, not what a server does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.tell({"experiment": {"experiment_id": "1", "name": "bench", "lifecycle_stage": "active"}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.tell({"run": {"info": {"run_id": "r", "experiment_id": "1", "status": "RUNNING"}, "data": {}}})

    def tell(self, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def mlflow_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mlflow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
