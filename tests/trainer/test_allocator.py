"""What a step frees is there for the next one, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llm_trainer.runtime.allocator import CHOSEN_BY
from tests.trainer.pods import ROOT

BLOCKS, BYTES, PAGE = 20, 48 * 2**20, 4096
STEPS = f"""
import ctypes, resource
from llm_trainer.runtime.allocator import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def step():
    block = libc.malloc({BYTES})
    ctypes.memset(block, 1, {BYTES})
    libc.free(block)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
KEEP
step()
before = faults()
for _ in range({BLOCKS}):
    step()
print(faults() - before)
"""


@pytest.mark.parametrize(
    ("keeps", "environment", "kept"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}, False),
    ],
    ids=["kept", "as glibc does", "as the user has chosen"],
)
def test_pages_are_faulted_in_once(*, keeps: bool, environment: dict[str, str], kept: bool) -> None:
    own = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY}
    code = STEPS.replace("KEEP", "keep_freed_memory()" if keeps else "")
    made = subprocess.run(
        [sys.executable, "-c", code], env={**own, **environment, "PYTHONPATH": str(ROOT / "trainer_image")},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    faults, pages = int(made.stdout), BLOCKS * BYTES // PAGE
    assert (faults < pages / 100) == kept, f"{faults} faults for {pages} pages"
