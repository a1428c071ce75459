"""Ranks in the order of where their pods are: who is next in a ring is next in the network, as far as labels tell it.

Completion indices are given before the scheduler has placed a pod, so the order is agreed when the processes meet.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch._C._distributed_c10d import Store

PLACE = "LLM_TOPOLOGY"  # variable: where the pod's node is, such as its zone, by the downward API; empty if unknown


def ranks_of(places: Sequence[str]) -> list[int]:
    """The rank of each pod, by its index: those of one place follow one another, and the first pod stays the first."""
    keys = [place or f"unknown {index}" for index, place in enumerate(places)]
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    order = sorted(range(len(keys)), key=lambda index: (first[keys[index]], index))
    return [order.index(index) for index in range(len(keys))]


def agreed_rank(store: Store, index: int, pods: int, place: str) -> int:
    """Of the pod with this index, the same to all of its processes. Waits until every pod has told its place."""
    store.set(f"place of {index}", place)
    return ranks_of([store.get(f"place of {other}").decode(errors="replace") for other in range(pods)])[index]
