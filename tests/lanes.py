"""`make test` in two lanes beside each other, by pytest-xdist: one waits for clusters, the other computes.

What runs on the two-node cluster or against an API server waits for most of its time; what trains keeps both cores
busy. So one lane takes the queue of files from its front, the other from its end, until they meet: two files of the
trainer run beside each other only when nothing else is left, and none is idle before the last file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# From the front what waits, from the end what computes, the longest first. What is not here comes between them.
FRONT = ("e2e", "monitoring", "api")
END = ("storage", "unit", "trainer")


def folder(nodeid: str) -> str:
    """`e2e` of `tests/e2e/test_chart.py::test_x[y]`."""
    return PurePosixPath(nodeid.partition("::")[0]).parts[1]


def unit_of(nodeid: str) -> str:
    """What one lane runs as a whole: a file, for its fixtures; all of e2e, as there is one two-node cluster."""
    return "tests/e2e" if folder(nodeid) == "e2e" else nodeid.partition("::")[0]


def place(unit: str) -> int:
    name = folder(unit)
    return FRONT.index(name) - len(FRONT) if name in FRONT else END.index(name) + 1 if name in END else 0


def taken(units: Sequence[str], *, lane: int) -> str:
    """Which of what is left an even lane takes: the first; an odd one: the last."""
    in_order = sorted(units, key=place)
    return in_order[-1] if lane % 2 else in_order[0]


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """One queue of units, taken from both ends; what it overrides is xdist's own seam for order and scope."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        lane = int(node.gateway.id.removeprefix("gw"))
        self.workqueue.move_to_end(taken(list(self.workqueue), lane=lane), last=False)
        super()._assign_work_unit(node)
