"""Memory of a step on CPU that the next step finds again, instead of the kernel's zeroed pages.

glibc gives large blocks back to the kernel as they are freed, and what is above them. The tensors of a step are freed
at its end, so each step would fault thousands of pages in, into no cache: a tenth of its time (docs/figures.md).
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT = 1 << 30  # bytes: a larger block comes from the kernel, as does what is freed beyond
CHOSEN_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> None:
    """From now on. What the user has chosen stays; another allocator has no such choice."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in os.environ for name in CHOSEN_BY):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_MMAP_THRESHOLD, KEPT)
