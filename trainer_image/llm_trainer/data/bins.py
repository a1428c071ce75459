"""How the rows of a step are put together, so that little is padded. Pure; lengths are in tokens."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence

Bin = list[int]  # places of the rows that lie one behind the other


def best_fit(lengths: Sequence[int], capacity: int) -> list[Bin]:
    """As few bins as best-fit decreasing finds: each row, the longest first, where it leaves the least room.

    No row may be longer than the capacity.
    """
    bins: list[Bin] = []
    rooms: list[tuple[int, int]] = []  # of each bin, with its number, the smallest first
    for place in longest_first(lengths):
        at = bisect_left(rooms, (lengths[place], -1))
        room, number = rooms.pop(at) if at < len(rooms) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(place)
        insort(rooms, (room - lengths[place], number))
    return bins


def even(lengths: Sequence[int], capacity: int, count: int) -> list[Bin] | None:
    """So many bins, about equally full: each row, the longest first, where there is the most room.

    None if a row finds no room so.
    """
    heap = [(0, number) for number in range(count)]
    bins: list[Bin] = [[] for _ in heap]
    for place in longest_first(lengths):
        filled, number = heap[0]
        if filled + lengths[place] > capacity:
            return None
        bins[number].append(place)
        heapq.heapreplace(heap, (filled + lengths[place], number))
    return bins


def longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))


def shares(lengths: Sequence[int], capacity: int, processes: int, size: int) -> list[list[list[Bin]]]:
    """Of each process its micro-batches, equally many for all, each of `size` bins at most.

    As few micro-batches as best-fit decreasing needs; they are then filled evenly, so that no process waits for
    another. Bins of about one length come together, as the shorter are padded. An empty micro-batch is one in which a
    process, of more than there are rows, has nothing to do.
    """
    packed = best_fit(lengths, capacity)
    rounds = -(-len(packed) // (processes * size))
    bins = even(lengths, capacity, min(rounds * processes * size, len(lengths))) or packed
    order = sorted(bins, key=lambda places: (-sum(lengths[place] for place in places), places))
    made: list[list[list[Bin]]] = [[] for _ in range(processes)]
    full, more = divmod(len(order), rounds * processes)
    begin = 0
    for number in range(rounds * processes):
        end = begin + full + (number < more)
        made[number % processes].append(order[begin:end])
        begin = end
    return made
