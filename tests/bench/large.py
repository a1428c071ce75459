"""``make bench-large``: what a process's memory rises to while a model of 1 B weights is made, written and read."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.trainer.large import PROCESSES, measure

GIB = 2**30
LAYERS, HIDDEN, VOCABULARY = 18, 2048, 32_000  # 1.06 billion weights


def main() -> None:
    """Takes 5 GiB of disk and twice the last column of memory."""
    folder = Path(tempfile.mkdtemp())
    try:
        found = measure(LAYERS, HIDDEN, VOCABULARY, folder)
    finally:
        shutil.rmtree(folder)
    bound = 0.6 * found.size + GIB
    print(f"{found.size / 4e9:.2f} B weights, {found.size / GIB:.2f} GiB in float32, ZeRO 3 on {PROCESSES} processes")
    print("| phase | peak of a process, GiB | bound, GiB |\n|---|---|---|")
    for phase, peak in found.peaks.items():
        print(f"| {phase} | {peak / GIB:.2f} | {bound / GIB:.2f} |")
    print("what was read is what was made" if found.same else "WHAT WAS READ DIFFERS")
