"""What the launcher finds in vLLM's output; the excerpts are of its version 0.31."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_server.last_words import LastWords, report, word_of
from llm_trainer.protocol import TERMINATION_MESSAGE_BYTES, Termination

END = """\
Traceback (most recent call last):
  File "/opt/venv/bin/vllm", line 10, in <module>
    sys.exit(main())
             ^^^^^^
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
OF_ENGINE = "(EngineCore pid=7) ERROR 11-26 05:32:01 [core.py:1433] "
CACHE = f"""\
{OF_ENGINE}EngineCore failed to start.
{OF_ENGINE}Traceback (most recent call last):
{OF_ENGINE}  File "kv_cache_utils.py", line 925, in _check_enough_kv_cache_memory
(Worker pid=9) INFO 11-26 05:32:01 [multiproc_executor.py:474] [shutdown] waiting
{OF_ENGINE}    raise ValueError(
{OF_ENGINE}ValueError: (4.0 GiB KV cache is needed, which is larger than (1.0 GiB).
"""
WORKER = """\
(Worker pid=9) ERROR 11-26 05:32:01 [multiproc_executor.py:948] Traceback (most recent call last):
(Worker pid=9) ERROR 11-26 05:32:01 [multiproc_executor.py:948]   File "x.py", line 1, in load
(Worker pid=9) ERROR 11-26 05:32:01 [multiproc_executor.py:948] ValueError: GPT2LMHeadModel does not support LoRA yet.
Traceback (most recent call last):
  File "y.py", line 1, in wait_for_ready
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
"""
PYDANTIC = """\
Traceback (most recent call last):
  File "x.py", line 1, in __init__
pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig
  Value error, Heads (4) must be divisible by tensor parallel size (8). [type=value_error, input_value=(), input_type=A]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""


def cause(text: str) -> str | None:
    words = LastWords()
    for line in text.splitlines():
        words.read(line)
    return words.cause


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CACHE + END, "ValueError: (4.0 GiB KV cache is needed, which is larger than (1.0 GiB)."),
        (WORKER + END, "ValueError: GPT2LMHeadModel does not support LoRA yet."),
        (PYDANTIC, "1 validation error for VllmConfig: Heads (4) must be divisible by tensor parallel size (8)."),
        ("usage: vllm\nvllm: error: unrecognized arguments: --nope\n", "vllm: error: unrecognized arguments: --nope"),
        (
            f"{OF_ENGINE}Worker proc VllmWorker-0 died unexpectedly (exit code: -4)\n{END}",
            "Worker proc VllmWorker-0 died unexpectedly (exit code: -4)",
        ),
        ("\x1b[31mTraceback (most recent call last):\n  File\nKeyError\x1b[0m\n", "KeyError"),
        ("one line\n\n", "one line"),
        ("", None),
    ],
    ids=["KV cache", "a worker's", "pydantic's", "arguments", "a worker's death", "colours", "no error", "nothing"],
)
def test_the_cause(text: str, expected: str | None) -> None:
    assert cause(text) == expected


def test_an_error_of_a_request_is_not_the_cause_of_the_end() -> None:
    request = "Traceback (most recent call last):\n  File\nValueError: a bad request\nINFO: 200 OK\n"
    assert cause(request + WORKER + END) == "ValueError: GPT2LMHeadModel does not support LoRA yet."


LINES = f"""\
{OF_ENGINE}Traceback (most recent call last):
{OF_ENGINE}  File "x.py", line 1
{OF_ENGINE}RuntimeError: CUDA error: bad
{OF_ENGINE}Compile with TORCH_USE_CUDA_DSA.
{OF_ENGINE}
{OF_ENGINE}During handling of it
"""
SECOND_HAND = "Worker failed with 'Unsupported CPU attention: head_dim=16', please check the stack trace above"
FAILED = f"""\
(Worker pid=9) ERROR 11-26 07:21:18 [multiproc_executor.py:1058] WorkerProc hit an exception.
(Worker pid=9) ERROR 11-26 07:21:18 [multiproc_executor.py:1058] Traceback (most recent call last):
(Worker pid=9) ERROR 11-26 07:21:18 [multiproc_executor.py:1058]   File "x.py", line 1, in worker_busy_loop
(Worker pid=9) ERROR 11-26 07:21:18 [multiproc_executor.py:1058] RuntimeError: Unsupported CPU attention: head_dim=16
(Worker pid=9) ERROR 11-26 07:21:18 [multiproc_executor.py:1058]
(EngineCore pid=7) ERROR 11-26 07:21:18 [dump_input.py:72] Dumping input data for V1 LLM engine (v0.31.0) with config:
(EngineCore pid=7) ERROR 11-26 07:21:18 [dump_input.py:79] Dumping scheduler output for model execution: Scheduler()
(EngineCore pid=7) ERROR 11-26 07:21:18 [core.py:1435] EngineCore encountered a fatal error.
(EngineCore pid=7) ERROR 11-26 07:21:18 [core.py:1435] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-26 07:21:18 [core.py:1435]   File "x.py", line 1, in get_response
(EngineCore pid=7) ERROR 11-26 07:21:18 [core.py:1435] RuntimeError: {SECOND_HAND}
"""
DEAD = """\
(APIServer pid=1) ERROR 11-26 05:33:00 [async_llm.py:871] AsyncLLM output_handler failed.
(APIServer pid=1) ERROR 11-26 05:33:00 [async_llm.py:871] Traceback (most recent call last):
(APIServer pid=1) ERROR 11-26 05:33:00 [async_llm.py:871]   File "async_llm.py", line 1, in output_handler
(APIServer pid=1) ERROR 11-26 05:33:00 [async_llm.py:871] vllm.v1.engine.exceptions.EngineDeadError: EngineCore
(APIServer pid=1) ERROR 11-26 05:33:01 [exception.py:16] Exception caught. Request id: cmpl-1
"""
HANDLED = "Traceback (most recent call last):\n  File\nImportError: no flash_attn\n"
CUDA = f"{OF_ENGINE}CUDA error: an illegal memory access was encountered\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HANDLED + CUDA + DEAD, "CUDA error: an illegal memory access was encountered"),
        (HANDLED + CUDA.rstrip(), "CUDA error: an illegal memory access was encountered"),
        (CUDA + HANDLED, "ImportError: no flash_attn"),
        (WORKER + DEAD, "ValueError: GPT2LMHeadModel does not support LoRA yet."),
        (
            f"{WORKER}{OF_ENGINE}Worker proc VllmWorker-0 died unexpectedly (exit code: 1), shutting down.\n{END}",
            "ValueError: GPT2LMHeadModel does not support LoRA yet.",
        ),
        (
            f"{HANDLED}{OF_ENGINE}Worker proc VllmWorker-0 died unexpectedly (exit code: -9)\n{END}",
            "Worker proc VllmWorker-0 died unexpectedly (exit code: -9)",
        ),
        (FAILED + DEAD, "RuntimeError: Unsupported CPU attention: head_dim=16"),
        (FAILED[FAILED.index("(EngineCore") :] + DEAD, f"RuntimeError: {SECOND_HAND}"),
        (LINES + END, "RuntimeError: CUDA error: bad Compile with TORCH_USE_CUDA_DSA."),
    ],
    ids=["a fatal error after a handled one", "the last line", "an exception after it", "a dead engine",
         "a worker that has told", "a worker that was killed", "no kernel", "of which only the engine tells",
         "an exception of several lines"],
)  # fmt: skip
def test_what_was_told_last_is_the_cause(text: str, expected: str) -> None:
    assert cause(text) == expected


def test_what_was_told_before_the_first_answer_is_forgotten() -> None:
    words = LastWords()
    for line in (HANDLED + CUDA + "days pass").splitlines():
        words.read(line)
    words.forget()
    assert words.cause == "days pass"
    for line in WORKER.splitlines():
        words.read(line)
    assert words.cause == "ValueError: GPT2LMHeadModel does not support LoRA yet."


@pytest.mark.parametrize(
    ("code", "said", "reason", "message"),
    [
        (1, "ValueError: (4.0 GiB KV cache is needed", "Error", "spec.maxModelLength"),
        (1, "torch.OutOfMemoryError: CUDA out of memory", "OutOfMemory", "CUDA out of memory"),
        (1, None, "Error", "exit code 1 and said nothing"),
        (
            -9,
            "loading",
            "Killed",
            "signal 9 (SIGKILL); if nobody did, the node was out of memory; before that: loading",
        ),
    ],
)
def test_reason_and_field(code: int, said: str | None, reason: str, message: str) -> None:
    found = word_of(code, said)
    assert found[0] == reason
    assert message in found[1]


@pytest.mark.parametrize("letter", ["a", "長", '"', "\x01", "🙂"])
def test_the_kubelet_keeps_all_of_the_message(letter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "termination"
    monkeypatch.setenv("LLM_TERMINATION_MESSAGE", str(file))
    report("Error", letter * 10_000, 1)
    written = file.read_bytes()
    assert len(written) <= TERMINATION_MESSAGE_BYTES
    word = Termination.model_validate_json(written)
    assert (word.reason, word.exit_code) == ("Error", 1)
    assert len(word.message) > 500
    assert json.loads(written)["message"] == word.message


def test_memory_stays_bounded() -> None:
    words = LastWords()
    words.read("Traceback (most recent call last):")
    words.read("ValueError: " + "x" * 10_000)
    for _ in range(1000):
        words.read("  more " + "y" * 10_000)
    assert len(words.cause or "") < 40_000
