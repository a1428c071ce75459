"""The product that tells whether a CPU's matrix unit works, on the CPU that is here."""

from __future__ import annotations

import time
from pathlib import Path

from llm_trainer.runtime.instructions import VARIABLE, choose_instructions, multiply, survives
from tests.bench.trainer_runs import Machine, start_ours
from tests.trainer.conftest import stage_config


def test_what_is_chosen_multiplies_right() -> None:
    assert survives(chosen)


def chosen() -> bool:
    choose_instructions()
    return multiply()


def test_what_is_measured_beside_a_rival_chooses_as_a_users_pod_does(tmp_path: Path) -> None:
    pods = start_ours(stage_config(tmp_path, "data", nodes=1), Machine("cpu", 1), tmp_path)
    given, end = b"", time.monotonic() + 60
    while not given and time.monotonic() < end:  # a program that is just being loaded has none yet
        given = Path(f"/proc/{pods.pods[0].pid}/environ").read_bytes()
    pods.kill()
    assert VARIABLE.encode() not in given
    assert b"OMP_NUM_THREADS" in given
