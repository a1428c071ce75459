"""A CPU's matrix unit is used where it works, and what traps ends a child alone."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path

import pytest

from llm_trainer.runtime import instructions
from llm_trainer.runtime.instructions import VARIABLE, WITHOUT, choose_instructions, has_matrix_unit, survives


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is taken back
    monkeypatch.delenv(VARIABLE)
    file = tmp_path / "cpuinfo"
    file.write_text("flags\t\t: avx512f avx512_bf16 amx_tile amx_bf16 amx_int8\n")
    return file


def trap() -> bool:
    faulthandler.disable()  # pytest's, which would tell of it as of a crash of the tests
    os.kill(os.getpid(), signal.SIGILL)
    return True


def wrong() -> bool:
    return False


def fail() -> bool:
    raise RuntimeError("no")


@pytest.mark.parametrize("work", [trap, wrong, fail])
def test_without_what_does_not_work(work: object, cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "multiply", work)
    choose_instructions(cpuinfo)
    assert os.environ[VARIABLE] == WITHOUT


def test_with_what_works(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "multiply", lambda: True)
    choose_instructions(cpuinfo)
    assert VARIABLE not in os.environ


def test_nothing_is_tried_where_nothing_is_to_choose(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "multiply", trap)
    monkeypatch.setenv(VARIABLE, "AVX2")
    choose_instructions(cpuinfo)
    assert os.environ[VARIABLE] == "AVX2", "what the user has set stays"
    monkeypatch.delenv(VARIABLE)
    cpuinfo.write_text("flags\t\t: avx512f avx512_bf16\n")
    choose_instructions(cpuinfo)
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("most", "has"),
    [
        (None, True),
        ("", True),
        ("ALL", True),
        ("default", True),
        ("AVX512_CORE_AMX", True),
        ("AVX10_1_512_AMX_FP16", True),
        (WITHOUT, False),  # also what is chosen where it traps
        ("AVX2", False),
    ],
)
def test_the_unit_is_there_where_onednn_may_use_it(
    most: str | None, has: bool, cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if most is not None:
        monkeypatch.setenv(VARIABLE, most)
    assert has_matrix_unit(cpuinfo) == has
    cpuinfo.write_text("flags\t\t: avx512f avx512_bf16\n")
    assert not has_matrix_unit(cpuinfo)


def test_a_child_that_hangs_is_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "SECONDS", 1)
    assert not survives(hang)


def hang() -> bool:
    signal.pause()
    return True
