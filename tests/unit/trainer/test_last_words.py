from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from llm_trainer.protocol import (
    TERMINATION_MESSAGE_BYTES,
    DataFigures,
    ExitCode,
    Notice,
    Progress,
    Result,
    Termination,
    TokenCount,
    Worker,
)
from llm_trainer.runtime.errors import NoSpaceError, classify
from llm_trainer.runtime.last_words import cause, killed, report


def test_the_cause_is_not_a_victim() -> None:
    victim = Termination(reason="PeerLost", exit_code=ExitCode.PEER_LOST, rank=0)
    assert cause([victim, killed(1, 9)]).rank == 1
    assert cause([victim]).reason == "PeerLost"


def test_a_killed_process_names_its_signal() -> None:
    assert "signal 9 (SIGKILL)" in killed(3, 9).message
    assert killed(3, 9).exit_code == 137


def test_a_termination_message_fits_what_the_kubelet_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_TERMINATION_MESSAGE", str(tmp_path / "message"))
    workers = [Worker(rank=rank, host=f"pod-{rank}", node=f"node-{rank}") for rank in range(1000)]
    progress = Progress(stage="base", attempt=1, step=7, workers=workers)
    report(Termination(reason="Succeeded", message="x" * 10_000, progress=progress))
    text = (tmp_path / "message").read_bytes()
    assert len(text) <= TERMINATION_MESSAGE_BYTES
    assert json.loads(text)["progress"]["step"] == 7


def test_a_result_outlives_many_held_out_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_TERMINATION_MESSAGE", str(tmp_path / "message"))
    figures = {f"bitsPerByte/source-{source}": math.nan for source in range(256)}
    result = Result(uri="pvc://models/run/stages/base/results/step-00000007", digest=f"sha256:{'1' * 64}", kind="model")
    report(
        Termination(reason="Succeeded", progress=Progress(stage="base", attempt=1, evaluation=figures, result=result))
    )
    text = (tmp_path / "message").read_bytes()
    assert len(text) <= TERMINATION_MESSAGE_BYTES
    told = Termination.model_validate_json(text).progress
    assert told
    assert told.result == result


def test_what_the_data_is_made_of_outlives_its_many_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_TERMINATION_MESSAGE", str(tmp_path / "message"))
    for count, told in ((64, True), (256, False)):
        sources = {f"source-of-{number}": 10**12 for number in range(count)}
        data = DataFigures(tokens=[TokenCount(domain="web", language="ja", tokens=1)], sources=sources)
        report(Termination(reason="Succeeded", progress=Progress(stage="data", attempt=1, data=data)))
        said = Termination.model_validate_json((tmp_path / "message").read_bytes()).progress
        assert said
        assert said.data
        assert said.data.tokens == data.tokens
        assert bool(said.data.sources) == told


@pytest.mark.parametrize(("domains", "told"), [(3, True), (256, False)])
def test_a_result_outlives_what_the_data_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domains: int, *, told: bool
) -> None:
    monkeypatch.setenv("LLM_TERMINATION_MESSAGE", str(tmp_path / "message"))
    tokens = [TokenCount(domain=f"domain-{number}", language="ja", tokens=1) for number in range(domains)]
    result = Result(uri="pvc://models/run/data", digest=f"sha256:{'1' * 64}", kind="data")
    notices = [Notice(reason="SourceDropped", message="x" * 500)] * 20
    progress = Progress(stage="data", attempt=1, data=DataFigures(tokens=tokens), result=result, notices=notices)
    report(Termination(reason="Succeeded", progress=progress))
    text = (tmp_path / "message").read_bytes()
    assert len(text) <= TERMINATION_MESSAGE_BYTES
    said = Termination.model_validate_json(text).progress
    assert said
    assert said.result == result
    assert (said.data is not None) == told


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoSpaceError("full"), ExitCode.NO_SPACE),
        (OSError(28, "No space left on device"), ExitCode.NO_SPACE),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), ExitCode.NO_SPACE),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), ExitCode.NO_SPACE),
        (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1"), ExitCode.PEER_LOST),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte"), ExitCode.OUT_OF_MEMORY),
        (ValueError("the text says out of memory"), ExitCode.INTERNAL),
        (KeyError("x"), ExitCode.INTERNAL),
    ],
)
def test_an_exception_has_its_exit_code(error: BaseException, code: ExitCode) -> None:
    assert classify(error)[0] == code


def test_want_of_memory_tells_how_much_and_what_to_do() -> None:
    said = (
        "CUDA out of memory. Tried to allocate 256.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which 138.00 "
        "GiB is free. Of the allocated memory 1.00 GiB is allocated by PyTorch. If reserved but unallocated memory …"
    )
    code, reason, message = classify(type("OutOfMemoryError", (RuntimeError,), {})(said))
    assert (code, reason) == (ExitCode.OUT_OF_MEMORY, "OutOfMemory")
    assert "256.00 GiB" in message
    assert "microBatchSize" in message
    assert "reserved but unallocated" not in message
