"""What a pod shows while it runs: /progress for the operator, /metrics for Prometheus, /healthz."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any

from prometheus_client import generate_latest

from llm_server.small_http import SmallHTTPServer
from llm_trainer.protocol import PROGRESS_PORT, Notice, Progress
from llm_trainer.runtime.metrics import Metrics
from llm_trainer.runtime.phases import PhaseClock
from llm_trainer.runtime.process_figures import StepParts
from llm_trainer.runtime.repeated import repeated
from llm_trainer.runtime.startup import Startup

MAX_NOTICES = 20
HEARTBEAT_SECONDS = 10.0


class Server(SmallHTTPServer):
    """Answers on all addresses of the pod: a cluster has IPv4, IPv6 or both, and a kernel may lack IPv6."""

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        super().__init__(("", port), handler)

    def server_bind(self) -> None:
        """HTTPServer's would also look up the host's full name, which nobody reads and which DNS may keep waiting."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)


class Board:
    """The newest Progress, changed by the stage and read by the server's threads."""

    def __init__(self, stage: str, attempt: int, startup: Startup | None = None) -> None:
        self.startup = startup or Startup()
        self._lock = threading.Lock()
        self._progress = Progress(stage=stage, attempt=attempt, heartbeat=time.time())
        self.at_end: list[Callable[[float], None]] = []  # given so many seconds before the process ends
        self.clock, self.parts = PhaseClock(self.startup.began), StepParts()
        self.metrics = Metrics(stage)
        self.metrics.show_time(self.clock, lambda: time.time() - self.progress.heartbeat)

    @property
    def progress(self) -> Progress:
        with self._lock:
            return self._progress

    def update(self, **fields: Any) -> None:
        """Set fields of Progress; every update is a sign of life."""
        if "phase" in fields:
            self.clock.enter(fields["phase"])
        with self._lock:
            self._progress = self._progress.model_copy(update={**fields, "heartbeat": time.time()})

    @contextmanager
    def beating(self) -> Iterator[None]:
        """The heartbeat goes on while the process is busy with one thing."""
        with repeated("heartbeat", HEARTBEAT_SECONDS, self.update):
            yield

    def take_over(self, told: Progress) -> None:
        """Show the end of a stage that was made before; what is this attempt's own stays."""
        own = ("stage", "attempt", "workers", "notices", "heartbeat")
        self.update(**{name: getattr(told, name) for name in Progress.model_fields if name not in own})

    def stepped(self) -> None:
        """After every step; the first one ends the start, of which Prometheus and the log are told."""
        if line := self.startup.first_step():
            print(line, flush=True)
            for part, seconds in self.startup.parts.items():
                self.metrics.start_seconds.labels(self.metrics.stage, part).set(seconds)

    def notice(self, reason: str, message: str) -> None:
        with self._lock:
            notices = [*self._progress.notices, Notice(reason=reason, message=message)][-MAX_NOTICES:]
            self._progress = self._progress.model_copy(update={"notices": notices})
        print(f"{reason}: {message}", flush=True)

    def serve(self) -> None:
        """Answer on PROGRESS_PORT (or $LLM_PROGRESS_PORT; 0 takes a free one) until the process ends."""
        board = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/progress":
                    body, kind = board.progress.model_dump_json(by_alias=True).encode(), "application/json"
                elif self.path == "/metrics":
                    body, kind = generate_latest(board.metrics.registry), "text/plain; version=0.0.4"
                elif self.path == "/healthz":
                    body, kind = b"ok\n", "text/plain"
                else:
                    self.send_error(HTTPStatus.NOT_FOUND)
                    return
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """A line for every scrape would bury the training's own."""

        port = int(os.environ.get("LLM_PROGRESS_PORT", PROGRESS_PORT))
        server = Server(port, Handler)
        threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
