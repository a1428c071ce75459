"""How many processes a pod has room for, by what its container may use."""

from __future__ import annotations

import os
from pathlib import Path

from llm_server.memory import memory_limit

QUOTA = "/sys/fs/cgroup/cpu.max"  # microseconds in a period, and the period; max: no limit
QUOTA_V1 = ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cpus(quota: str = QUOTA, quota_v1: tuple[str, str] = QUOTA_V1) -> int:
    """Whole CPUs: those that the container may run on, up to its limit."""
    there = len(os.sched_getaffinity(0))
    try:
        said = Path(quota).read_text().split()
    except OSError:
        try:
            said = [Path(file).read_text().strip() for file in quota_v1]
        except OSError:
            return there
    return max(1, min(there, int(said[0]) // int(said[1]))) if said[0].isdigit() else there


def processes_that_fit(each: int) -> int:
    """One for each CPU, as far as the container's memory, or the node's, holds so many bytes for each."""
    node = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(usable_cpus(), min(node, memory_limit() or node) // each))
