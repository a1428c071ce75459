"""The table and the times at the end of a run."""

from __future__ import annotations

import pytest

from tests.report import part_of, seconds_by_file, seconds_by_part, table


def report(nodeid: str, when: str = "call", seconds: float = 1.0, *marks: str, **seen: str) -> pytest.TestReport:
    keywords, properties = dict.fromkeys(marks, 1), [*seen.items()]
    return pytest.TestReport(
        nodeid, ("", None, ""), keywords, "passed", None, when, user_properties=properties, duration=seconds  # type: ignore[arg-type]
    )  # fmt: skip


def test_time_by_part() -> None:
    reports = [
        report("tests/unit/a/test_x.py::test_a"),
        report("tests/e2e/test_y.py::test_b", "setup", 20.0),
        report("tests/e2e/test_y.py::test_b", seconds=30.0),
        report("tests/e2e/test_y.py::test_c", "call", 40.0, "release"),
    ]
    assert seconds_by_part(reports, 90.0) == {"building": 90.0, "unit": 1.0, "e2e": 50.0, "release": 40.0}
    assert [*seconds_by_file(reports).items()] == [("tests/e2e/test_y.py", 90.0), ("tests/unit/a/test_x.py", 1.0)]
    assert part_of("tests/test_z.py::test_c") == "tests"


def test_the_table_has_the_cluster_and_what_was_seen() -> None:
    rows = [*table([
        report("tests/unit/test_x.py::test_a"),
        report("tests/e2e/test_y.py::test_b[x|y]", seconds=65.0),
        report("tests/trainer/test_ppo.py::test_c", reward="0.8"),
        report("tests/trainer/test_ppo.py::test_c", "teardown", reward="0.8"),
    ])][2:]  # fmt: skip
    assert rows == [
        "| `e2e/test_y.py::test_b[x\\|y]` | passed | 1:05 |  |",
        "| `trainer/test_ppo.py::test_c` | passed | 0:01 | reward: 0.8 |",
    ]
