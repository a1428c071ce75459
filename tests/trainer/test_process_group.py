"""Processes whose others never come: each says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.trainer.pods import ROOT, free_port

ALONE = """
from datetime import timedelta
import os
from llm_trainer.runtime import gate, process_group
from llm_trainer.runtime.errors import classify
process_group.TIMEOUT, process_group.NAME_SECONDS = timedelta(seconds=2), 1.0
gate.PATIENCE_SECONDS = 2.0
rank, port = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"])
meeting = gate.open_meeting(rank, 2, os.environ["MASTER_ADDR"], port, b"token")
os.environ.update(meeting.environment())
try:
    process_group.ProcessGroup.from_environment("cpu").join()
except Exception as error:
    print(*classify(error)[1:], sep=": ", flush=True)
meeting.end()
"""


@pytest.mark.parametrize(
    ("rank", "address", "says"),
    [
        (0, "127.0.0.1", "could not meet the others at 127.0.0.1: Timed out"),
        (1, "127.0.0.1", "could not meet the others at 127.0.0.1: Failed to recv"),
        (1, "nowhere.invalid", "nowhere.invalid, did not resolve within 1 s"),
    ],
)
def test_who_waits_in_vain(rank: int, address: str, says: str) -> None:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT / "trainer_image"), "DS_ACCELERATOR": "cpu", "RANK": str(rank),
        "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": address, "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    told = subprocess.run([sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, check=True)
    last = told.stdout.splitlines()[-1]
    assert last.startswith("PeerLost: "), told.stdout + told.stderr
    assert says in last
