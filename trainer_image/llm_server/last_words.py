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
    r"EngineCore failed to start|EngineCore encountered a fatal error|WorkerProc (failed to start|hit an exception)|"
    r"Exception caught\. Request id|Dumping (input data|scheduler)"
)
# Of another process that has told its exception itself: a cause only where that one was not seen.
SECOND_HAND = re.compile(r"died unexpectedly \(exit code: \d|check the stack trace above")
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
    """Reads the output of all processes line by line and remembers what may be the cause; of bounded size.

    It is what was told last and is no consequence. An ERROR line right before a traceback is its head, and one of the
    same record after it belongs to the exception's text.
    """

    def __init__(self) -> None:
        self._in_traceback: set[str] = set()
        self._open: dict[str, list[str]] = {}  # process → the exception whose text goes on
        self._record: dict[str, str] = {}  # process → the prefix of the lines of its last exception
        self._heads: dict[str, str] = {}  # process → the ERROR line that it wrote last
        self._exception: list[str] | None = None
        self._error: str | None = None
        self._last: str | None = None

    def forget(self) -> None:
        """VLLM answers: whatever was told before did not keep it from that."""
        self._heads.clear()
        self._exception = self._error = None

    def read(self, line: str) -> None:
        line = COLOURS.sub("", line).rstrip()
        prefix = OF_VLLM.match(line)
        process, level = (prefix["process"] or "", prefix["level"]) if prefix else ("", None)
        record, text = line[: prefix.end() if prefix else 0], line[prefix.end() if prefix else 0 :]
        if not text.strip():
            self._open.pop(process, None)
            return
        self._last = text.strip()
        self._head_alone(process, text)
        if text == TRACEBACK:
            self._open.pop(process, None)
            self._in_traceback.add(process)
        elif text.startswith((" ", "\t")):
            self._goes_on(process, text)
        elif process in self._in_traceback:
            self._in_traceback.discard(process)
            self._raised(process, record, text)
        elif level == "ERROR" and self._record.get(process) == record:
            self._goes_on(process, text)
        elif level == "ERROR" or ": error: " in text:
            self._open.pop(process, None)
            self._told(process, text.strip()[:MESSAGE_CHARACTERS])
        else:
            self._open.pop(process, None)

    def _head_alone(self, process: str, text: str) -> None:
        """The line before this one was an error by itself if no traceback follows it."""
        head = self._heads.pop(process, None)
        if head and text != TRACEBACK:
            self._error, self._exception = head, None

    def _goes_on(self, process: str, text: str) -> None:
        if process in self._open and len(self._open[process]) < LINES_OF_A_MESSAGE:
            self._open[process].append(text.strip()[:MESSAGE_CHARACTERS])

    def _raised(self, process: str, record: str, text: str) -> None:
        self._record[process] = record
        if EXCEPTION.match(text) and self._is_news(text):
            self._heads.clear()
            self._exception = self._open[process] = [text[:MESSAGE_CHARACTERS]]

    def _told(self, process: str, text: str) -> None:
        if self._is_news(text):
            self._heads[process] = text

    def _is_news(self, text: str) -> bool:
        return not CONSEQUENCES.search(text) and not (self._exception and SECOND_HAND.search(text))

    @property
    def cause(self) -> str | None:
        """In one sentence; the last line if nothing of the output says it."""
        if self._heads:
            return [*self._heads.values()][-1]
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


def written_word(reason: str, message: str, exit_code: int, without_adapters: str | None) -> bytes:
    word = {"reason": reason, "message": message, "exitCode": exit_code, "withoutAdapters": without_adapters}
    return json.dumps({key: value for key, value in word.items() if value is not None}, ensure_ascii=False).encode()


def report(reason: str, message: str, exit_code: int, without_adapters: str | None = None) -> None:
    """Write the termination message; ``without_adapters``: why the model is served without."""
    file = Path(os.environ.get("LLM_TERMINATION_MESSAGE", "/dev/termination-log"))
    text = "".join(letter if letter.isprintable() else " " for letter in message)
    while len(written := written_word(reason, text, exit_code, without_adapters)) > MESSAGE_BYTES:
        text = text[: len(text) * 9 // 10]
    try:
        file.write_bytes(written)
    except OSError as error:  # nobody reads it then
        print(f"can't write {file}: {error}", flush=True)
