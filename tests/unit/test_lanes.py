"""Which files run beside which."""

from __future__ import annotations

from tests.lanes import taken, unit_of

UNITS = ["tests/api/a.py", "tests/app/a.py", "tests/e2e", "tests/new/a.py", "tests/trainer/a.py", "tests/unit/a.py"]


def order(lane: int) -> list[str]:
    left, found = list(UNITS), []
    while left:
        found.append(taken(left, lane=lane))
        left.remove(found[-1])
    return found


def test_one_lane_waits_and_the_other_computes() -> None:
    assert order(0)[:2] == ["tests/e2e", "tests/api/a.py"]
    assert order(1)[:2] == ["tests/trainer/a.py", "tests/unit/a.py"]
    assert order(0) == order(1)[::-1]


def test_the_two_node_cluster_belongs_to_one_lane() -> None:
    assert unit_of("tests/e2e/test_a.py::test_x[y]") == unit_of("tests/e2e/test_b.py::test_z") == "tests/e2e"


def test_a_file_is_not_torn() -> None:
    assert unit_of("tests/api/kube/test_a.py::Group::test_x[a::b]") == "tests/api/kube/test_a.py"
