"""Looks at vLLM from beside: whether it has answered a first request, and whether its engine still makes steps.

An engine that hangs (a collective that never ends) leaves /health at 200. One that makes no step for a while is idle or
hangs: it is asked for one token, and what does not answer that is no engine. So neither a long prompt, whose every part
is a step, nor an idle night is taken for a hang.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from socket import AF_INET, AF_INET6

from llm_server.arguments import first_of, number_of
from llm_server.first_token import Server, ask, no_answer, server_at
from llm_server.small_http import SmallHTTPServer
from llm_server.startup import Startup

STEPS = re.compile(rb'^vllm:iteration_tokens_total_count\{[^}]*engine="([^"]*)"[^}]*\} (\S+)$', re.MULTILINE)
AWAKE = re.compile(rb'^vllm:engine_sleep_state\{[^}]*sleep_state="awake"[^}]*\} (\S+)$', re.MULTILINE)
LOOK_SECONDS = 5
HEALTH_SECONDS = 4
LEAST_ANSWER_SECONDS = 10.0  # a busy machine is no hang


def server_of(arguments: Sequence[str], environ: Mapping[str, str]) -> Server:
    """Where `vllm serve` listens with these arguments, the model's first. Of several names any will do."""
    host = first_of(arguments, "--host") or "0.0.0.0"  # noqa: S104 -- vLLM's own default
    port, name = number_of(arguments, "--port"), first_of(arguments, "--served-model-name")
    tls = first_of(arguments, "--ssl-keyfile") is not None
    return server_at(host, port or 8000, name or arguments[0], environ, tls=tls)


class Watch:
    """``answered`` is called at the first answer, and ``hang`` once, with the reason, when vLLM must be ended."""

    def __init__(
        self,
        server: Server,
        startup_seconds: float,
        stall_seconds: float,
        hang: Callable[[str], None],
        answered: Callable[[], None],
    ) -> None:
        self.server = server
        self.started = False
        self.problem = "vLLM loads the model"
        self._startup_seconds = startup_seconds
        self._deadline = time.monotonic() + startup_seconds
        self._stall_seconds = stall_seconds
        self._answer_seconds = max(LEAST_ANSWER_SECONDS, stall_seconds / 5)
        self._hang = hang
        self._answered = answered

    def run(self) -> None:
        """Until vLLM hangs, or for ever."""
        while self.problem and not self.started:
            left = self._deadline - time.monotonic()
            if left <= 0:
                self._hang(f"no answer within spec.startupTimeoutSeconds {self._startup_seconds:.0f}: {self.problem}")
                return
            problem = no_answer(self.server, left)
            self.problem, self.started = problem or "", problem is None
            if problem:
                time.sleep(min(1.0, max(0.0, self._deadline - time.monotonic())))
        self._answered()
        self._watch_steps()

    def _watch_steps(self) -> None:
        seen: Mapping[str, float] = {}
        last: dict[str, float] = {}
        quiet_since = time.monotonic()
        while True:
            time.sleep(min(LOOK_SECONDS, self._stall_seconds / 3))
            now, steps = time.monotonic(), self._steps()
            if steps == {}:  # --disable-log-stats: without steps a long queue can't be told from a hang
                last, quiet_since = {}, now
            for engine, count in (steps or {}).items():
                if count != seen.get(engine):
                    last[engine] = now
            seen = steps or seen
            oldest = min(last.values(), default=quiet_since)
            if now - oldest < self._stall_seconds:
                continue
            if problem := no_answer(self.server, self._answer_seconds):
                self.started, self.problem = False, problem
                self._hang(f"the engine made no step for {now - oldest:.0f} s; {problem}")
                return
            last, quiet_since = dict.fromkeys(last, time.monotonic()), time.monotonic()

    def _steps(self) -> dict[str, float] | None:
        """Steps so far by engine; a sleeping one counts as one that makes some. None where vLLM does not tell."""
        try:
            _, said = ask(self.server, "/metrics", None, LOOK_SECONDS)
        except (OSError, http.client.HTTPException):
            return None
        if any(float(awake) == 0 for awake in AWAKE.findall(said)):
            return {"asleep": time.monotonic()}
        return {engine.decode(): float(count) for engine, count in STEPS.findall(said)}

    @property
    def healthy(self) -> bool:
        try:
            return self.started and ask(self.server, "/health", None, HEALTH_SECONDS)[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def serve(watch: Watch, startup: Startup, host: str, port: int) -> SmallHTTPServer:
    """/startup, /ready and /live for the kubelet, /start for the operator, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            states = {"/startup": watch.started, "/live": True, "/start": startup.done}
            good = watch.healthy if self.path == "/ready" else states.get(self.path, False)
            said = "ok" if good else watch.problem or "vLLM is not healthy"
            if good and self.path == "/start":
                said = json.dumps(startup.parts)
            self.send_response(200 if good else 503)
            self.end_headers()
            self.wfile.write(f"{said}\n".encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- the base's name
            """A look every two seconds is no news."""

    class Http(SmallHTTPServer):
        address_family = AF_INET6 if ":" in host else AF_INET

    http_server = Http((host, port), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True, name="probes").start()
    return http_server
