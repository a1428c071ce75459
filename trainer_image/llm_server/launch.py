"""The entry point of a serving pod: runs `vllm serve` with its own arguments, and says why it ended.

As PID 1 of its container it passes signals and output on and reaps what is left behind. The output goes through
unchanged; see last_words.py, watch.py, memory.py and model_folder.py for what is read from it, watched and told.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from llm_server.arguments import first_of
from llm_server.certificates import Certificates
from llm_server.door import KEY, MIDDLEWARE, key_problem
from llm_server.ends_of_turn import generation_arguments
from llm_server.last_words import CONFIGURATION, HANG, LastWords, report, word_of
from llm_server.memory import TooLittleMemoryError, cache_arguments
from llm_server.model_folder import adapter_problem, folder_problem, without_adapters
from llm_server.model_infos import lay_out
from llm_server.startup import Startup

ADAPTER_NOT_SUPPORTED = "AdapterNotSupported"
PORT = 9401  # of /startup, /ready, /live and /start; 0 in LLM_SERVER_PORT: none
STARTUP_SECONDS = "1800"
STALL_SECONDS = "300"
TICK_SECONDS = 1.0
DIGESTS = "LLM_SERVER_DIGESTS"
LAST_OUTPUT_SECONDS = 2  # after vLLM's end, for what its processes left in the pipe
CHUNK = 65536


class Child:
    """vLLM's first process: its output, its signals, its end."""

    def __init__(self, command: Sequence[str], startup: Startup) -> None:
        self.words = LastWords()
        self.startup = startup
        self.hang: str | None = None
        self.refused: str | None = None
        self.asked_to_leave = self.has_served = False
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        self._partial = {1: b"", 2: b""}

    def send(self, number: int, _frame: FrameType | None = None) -> None:
        self.asked_to_leave = True
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def end_all(self) -> None:
        """Kill every process of vLLM's session, stopped ones too."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def give_up(self, reason: str) -> None:
        """It hangs: no request that it holds will ever be answered. One that leaves takes no new ones, and drains."""
        if self.asked_to_leave:
            return
        self.hang = reason
        print(f"llm_server: {reason}; ending vLLM", file=sys.stderr, flush=True)
        self.end_all()

    def answers(self) -> None:
        """Whatever was told before did not keep it from that."""
        self.has_served = True
        self.words.forget()
        self.startup.answered()

    def has_left(self, code: int) -> bool:
        """As it was asked to. VLLM may fall over while it leaves, as over a process of its own that has just ended:
        of who has served until then, that is no failure.
        """
        return self.asked_to_leave and (code == 0 or (code > 0 and self.has_served))

    def refuse(self, reason: str) -> None:
        """What it loads must not be served."""
        self.refused = reason
        self.end_all()

    def run(self) -> int:
        """Pass its output on until it ends; its exit code, or the negative of the signal that ended it."""
        selector = selectors.DefaultSelector()
        for descriptor, pipe in ((1, self._process.stdout), (2, self._process.stderr)):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, descriptor)
        code: int | None = None
        ended = 0.0
        while selector.get_map() and not (code is not None and time.monotonic() > ended + LAST_OUTPUT_SECONDS):
            for key, _ in selector.select(TICK_SECONDS):
                chunk = os.read(key.fd, CHUNK)
                if chunk:
                    self._pass_on(chunk, key.data)
                else:
                    selector.unregister(key.fileobj)
            if code is None and (code := self._reap()) is not None:
                ended = time.monotonic()
                self.end_all()  # an engine that outlives its server would keep the pipe, the port and the memory
        while code is None:
            time.sleep(TICK_SECONDS / 10)
            code = self._reap()
        for descriptor in self._partial:
            self._pass_on(b"\n" if self._partial[descriptor] else b"", descriptor, echo=False)
        return code

    def _reap(self) -> int | None:
        """Take the ends of all children, as PID 1 must; vLLM's own if it is among them."""
        found = None
        with suppress(ChildProcessError):
            while (end := os.waitpid(-1, os.WNOHANG))[0]:
                if end[0] == self._process.pid:
                    found = self._process.returncode = os.waitstatus_to_exitcode(end[1])
        return found

    def _pass_on(self, chunk: bytes, descriptor: int, *, echo: bool = True) -> None:
        rest = chunk if echo else b""
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        *lines, partial = (self._partial[descriptor] + chunk).replace(b"\r", b"\n").split(b"\n")
        self._partial[descriptor] = partial[-CHUNK:]
        for line in lines:
            self.words.read(said := line.decode(errors="replace"))
            self.startup.read(said)


def any_address() -> str:
    """Where to listen for every family of addresses that the pod may have."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        if not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            probe.bind(("::", 0))
            return "::"
    return "0.0.0.0"  # noqa: S104 -- a pod serves its Service


def on_cpu() -> bool:
    """Whether vLLM will run on the CPU: the operator sets this there alone."""
    return "VLLM_CPU_OMP_THREADS_BIND" in os.environ


def first_refusal() -> bool:
    """Whether no start of this container has ended yet to say that it serves without adapters: one must, because the
    status of a pod shows no word of a container that runs.
    """
    told = Path(os.environ.get("LLM_SERVER_STATE", "/tmp/llm-server")) / "adapters-refused"  # noqa: S108
    if told.exists():
        return False
    told.parent.mkdir(parents=True, exist_ok=True)
    told.touch()
    return True


class RefusedError(Exception):
    """With these arguments vLLM can't start."""

    def __init__(self, reason: str, message: str, without_adapters: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.without_adapters = without_adapters


def prepared(arguments: list[str]) -> tuple[list[str], str | None]:
    """With what only the pod knows, and why without adapters; raises RefusedError, or an error of the model's files."""
    model = Path(arguments[0])
    if problem := folder_problem(model):
        raise RefusedError("ConfigurationError", problem)
    if problem := key_problem(os.environ.get(KEY)):
        raise RefusedError("ConfigurationError", f"spec.apiKey: the key {problem}; correct the Secret")
    certificates = Certificates.of(arguments)
    if certificates and (problem := certificates.renew()):
        raise RefusedError("ConfigurationError", f"spec.tls: {problem}; correct the Secret")
    if refused := adapter_problem(model, arguments):
        # Also for an end that leaves no time to write: the word of every end tells it.
        report(ADAPTER_NOT_SUPPORTED, refused, CONFIGURATION, refused)
        if first_refusal():
            raise RefusedError(ADAPTER_NOT_SUPPORTED, refused, refused)
        print(f"llm_server: serves without adapters: {refused}", flush=True)
        arguments = without_adapters(arguments)
    added = [f"--middleware={MIDDLEWARE}"]  # vLLM asks the last of them first
    if not first_of(arguments, "--host"):
        added.append(f"--host={any_address()}")
    added += certificates.arguments() if certificates else []
    added += generation_arguments(model, arguments)
    lay_out(model, os.environ)
    if on_cpu() and (model / "config.json").is_file():
        try:
            added += cache_arguments(model, arguments, dict(os.environ))
        except TooLittleMemoryError as error:
            raise RefusedError("OutOfMemory", str(error), refused) from error
    return [*arguments, *added], refused


def main(arguments: list[str]) -> int:
    """``arguments``: those of `vllm serve`, the model's first."""
    startup = Startup()
    certificates = Certificates.of(arguments)
    try:
        arguments, without = prepared(arguments)
    except RefusedError as refusal:
        return end(refusal.reason, str(refusal), CONFIGURATION, refusal.without_adapters)
    except (OSError, ValueError) as error:  # a file that can't be read, or is not what its name says
        return end("ConfigurationError", f"spec.model: {error}", CONFIGURATION)
    print(f"llm_server: vllm serve {' '.join(arguments)}", flush=True)
    verification = Verification.of(os.environ)  # beside vLLM's imports, which take longer
    child = Child([shutil.which("vllm") or "vllm", "serve", *arguments], startup)
    signal.signal(signal.SIGTERM, child.send)
    signal.signal(signal.SIGINT, child.send)
    if certificates:
        certificates.follow()
    watch_from_beside(child, arguments, verification)
    code = child.run()
    if child.refused:
        return end("ConfigurationError", child.refused, CONFIGURATION, without)
    if child.hang:
        return end("Hang", child.hang, HANG, without)
    if child.has_left(code):
        return 0
    if code in (-signal.SIGTERM, -signal.SIGINT) and child.asked_to_leave:  # while it imported: then it has no handler
        return end("Killed", "vLLM was asked to leave while it started", 128 - code, without)
    # VLLM's server leaves in good order, with 0, when its engine has died.
    return end(*word_of(code, child.words.cause), 128 - code if code < 0 else code or 1, without)


class Verification:
    """Whether the model and its adapters are what the trainings' status tells, by a process of the trainer's code."""

    def __init__(self, digests: str) -> None:
        """``digests``: JSON, of manifests by folder."""
        command = [sys.executable, "-m", "llm_trainer.checkpoint.verify", digests]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Verification | None:
        """None: there is nothing to compare with, as of a model that no training has made."""
        digests = environ.get(DIGESTS)
        return cls(digests) if digests else None

    def problem(self) -> str | None:
        """Waits for its word. Its exit code tells nothing: PID 1 takes the ends of all processes."""
        said = self._process.stdout.read() if self._process.stdout else b""
        try:
            problem: str | None = json.loads(said)["problem"]
        except (ValueError, KeyError, TypeError):
            problem = "its files could not be compared with the digest of its training; see the log"
        return f"spec.model: {problem}; restore it, or train the stage that made it anew" if problem else None


def watch_from_beside(child: Child, arguments: Sequence[str], verification: Verification | None) -> None:
    """While vLLM imports; nothing waits for it. No pod is ready whose files have not been compared."""
    from llm_server.watch import Watch, serve, server_of

    seconds = [
        float(os.environ.get(f"LLM_SERVER_{name}_SECONDS") or default)
        for name, default in (("STARTUP", STARTUP_SECONDS), ("STALL", STALL_SECONDS))
    ]
    watch = Watch(server_of(arguments, os.environ), seconds[0], seconds[1], child.give_up, child.answers)
    if port := int(os.environ.get("LLM_SERVER_PORT") or PORT):
        serve(watch, child.startup, first_of(arguments, "--host") or any_address(), port)

    def run() -> None:
        if verification and (problem := verification.problem()):
            child.refuse(problem)
        else:
            watch.run()

    threading.Thread(target=run, daemon=True, name="watch").start()


def end(reason: str, message: str, code: int, without_adapters: str | None = None) -> int:
    print(f"llm_server: {reason}: {message}", file=sys.stderr, flush=True)
    report(reason, message, code, without_adapters)
    return code


if __name__ == "__main__":
    # PID 1 loses a SIGTERM for which it has no handler. Until there is a vLLM, to leave is all there is to do.
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    sys.exit(main(sys.argv[1:]))
