"""Why vLLM ended, found in what it wrote, and the termination message that says it. Pure but for `report`.

vLLM's processes each tell of their end, the engine's worker first; what comes last in the log is a consequence ("see
root cause above"), 4 to 9 kB after the cause, and the kubelet keeps 2 kB. The message is JSON of reason, message and
exitCode, as the trainer's (llm_trainer/protocol.py).
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

MESSAGE_BYTES = 4096  # the kubelet cuts there
MESSAGE_CHARACTERS = 1500  # of a line
LINES_OF_A_MESSAGE = 20
HANG = 79  # the exit codes of llm_trainer/protocol.py
CONFIGURATION = 78

OF_VLLM = re.compile(r"^(\((?P<process>[^()]*pid=\d+)\) ?)?((?P<level>[A-Z]+) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
TRACEBACK = "Traceback (most recent call last):"
EXCEPTION = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(: (?P<text>.*))?$")
CONSEQUENCES = re.compile(
    r"See root cause above|See stack trace for root cause|see the stack trace above|EngineDeadError|"
    r"^(asyncio\.\S*)?(CancelledError|KeyboardInterrupt|SystemExit|BrokenPipeError|ConnectionResetError|EOFError)\b|"
    r"EngineCore failed to start|EngineCore encountered a fatal error|WorkerProc (failed to start|hit an exception)"
)
OF_PYDANTIC = re.compile(r" \[type=\w+, input_value=.*\]$|^Value error, ")
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|^MemoryError|OutOfMemoryError", re.IGNORECASE)
# What vLLM says → the field of an LLMServing that mends it.
FIELDS = (
    ("KV cache is needed", "spec.maxModelLength: set at most the length that fits, or raise spec.resources.limits"),
    ("Cannot auto-fit max_model_len", "raise spec.resources.limits"),
    ("must be divisible by tensor parallel size", "spec.resources.limits: ask for as many GPUs as divide the heads"),
    ("User-specified max_model_len", "spec.maxModelLength: set at most the model's own length"),
    ("does not support LoRA", "spec.adapters: remove them, or merge the adapter into its base (lora.merge)"),
    ("unrecognized arguments", "spec.extraArguments: correct it"),
)


class LastWords:
    """Reads the output of all processes line by line and remembers what may be the cause; of bounded size."""

    def __init__(self) -> None:
        self._in_traceback: set[str] = set()
        self._open: dict[str, list[str]] = {}  # process → the exception whose text goes on
        self._exception: list[str] | None = None
        self._error: str | None = None
        self._last: str | None = None

    def read(self, line: str) -> None:
        line = COLOURS.sub("", line).rstrip()
        prefix = OF_VLLM.match(line)
        process, level = (prefix["process"] or "", prefix["level"]) if prefix else ("", None)
        text = line[prefix.end() :] if prefix else line
        if not text.strip():
            self._open.pop(process, None)
            return
        self._last = text.strip()
        if text == TRACEBACK:
            self._open.pop(process, None)
            self._in_traceback.add(process)
        elif text.startswith((" ", "\t")):
            if process in self._open and len(self._open[process]) < LINES_OF_A_MESSAGE:
                self._open[process].append(text.strip()[:MESSAGE_CHARACTERS])
        elif process in self._in_traceback:
            self._in_traceback.discard(process)
            self._raised(process, text)
        elif level == "ERROR" or ": error: " in text:
            self._open.pop(process, None)
            if not CONSEQUENCES.search(text):
                self._error = text.strip()[:MESSAGE_CHARACTERS]
        else:
            self._open.pop(process, None)

    def _raised(self, process: str, text: str) -> None:
        if EXCEPTION.match(text) and not CONSEQUENCES.search(text):
            self._exception = self._open[process] = [text[:MESSAGE_CHARACTERS]]

    @property
    def cause(self) -> str | None:
        """The sentence of the last exception that was no consequence of another; else of the last error or line."""
        return sentence(self._exception) if self._exception else self._error or self._last


def sentence(lines: list[str]) -> str:
    """An exception in one line; of pydantic's without what it says of itself."""
    first, *more = lines
    kind, _, text = first.partition(": ")
    if kind.endswith("ValidationError") and more:
        said = [
            OF_PYDANTIC.sub("", OF_PYDANTIC.sub("", line)) for line in more if "For further information" not in line
        ]
        return f"{text}: {' '.join(said)}"
    return " ".join([f"{kind.rpartition('.')[2]}{': ' if text else ''}{text}", *more])


def with_field(cause: str) -> str:
    """The cause and which field mends it."""
    field = next((field for said, field in FIELDS if said in cause), None)
    return f"{cause.rstrip('. ')}. {field}" if field else cause


def word_of(code: int, cause: str | None) -> tuple[str, str]:
    """Reason and message of an end; ``code``: the exit code, or the negative of a signal."""
    if code < 0:
        name = signal.Signals(-code).name
        after = f"; before that: {cause}" if cause else ""
        hint = "; if nobody did, the node was out of memory" if code == -signal.SIGKILL else ""
        return "Killed", f"vLLM was killed by signal {-code} ({name}){hint}{after}"
    said = with_field(cause or f"vLLM ended with exit code {code} and said nothing")
    return ("OutOfMemory" if OUT_OF_MEMORY.search(said) else "Error"), said


def written_word(reason: str, message: str, exit_code: int) -> bytes:
    return json.dumps({"reason": reason, "message": message, "exitCode": exit_code}, ensure_ascii=False).encode()


def report(reason: str, message: str, exit_code: int) -> None:
    """Write the termination message."""
    file = Path(os.environ.get("LLM_TERMINATION_MESSAGE", "/dev/termination-log"))
    text = "".join(letter if letter.isprintable() else " " for letter in message)
    while len(written := written_word(reason, text, exit_code)) > MESSAGE_BYTES:
        text = text[: len(text) * 9 // 10]
    try:
        file.write_bytes(written)
    except OSError as error:  # nobody reads it then
        print(f"can't write {file}: {error}", flush=True)
