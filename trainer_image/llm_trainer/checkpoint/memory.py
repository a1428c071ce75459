"""Room in the container's memory for a copy of what is saved."""

from __future__ import annotations

from pathlib import Path

from llm_server.memory import available_memory

SHARE = 0.9  # of what seems to be free: the rest is for what nobody has counted


def room(processes: int) -> int:
    """Bytes that each of the pod's processes may take without one of them being killed for it."""
    return room_of(free_memory(), returned_memory(), processes)


def room_of(free: int, returned: int, processes: int) -> int:
    """``returned``: what this process once held and has given back; it may need as much again."""
    return int(SHARE * max(0, free) / processes) - returned


def free_memory() -> int:
    """Of the container and of its node."""
    node = kibibytes("/proc/meminfo").get("MemAvailable", 0) * 1024
    container = available_memory()
    return node if container is None else min(node, container)


def returned_memory() -> int:
    found = kibibytes("/proc/self/status")
    return max(0, found.get("VmHWM", 0) - found.get("VmRSS", 0)) * 1024


def kibibytes(file: str) -> dict[str, int]:
    """Of a file of the kernel's, by name."""
    words = [line.replace(":", " ").split() for line in Path(file).read_text().splitlines()]
    return {word[0]: int(word[1]) for word in words if len(word) == 3 and word[2] == "kB"}
