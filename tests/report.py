"""What a run says at its end: its time by part and the slowest files, and a table of what the tests on the cluster saw.

A test adds to the table by pytest's `record_property`. The table of `make test-all` is that of docs/figures.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import pytest

SLOWEST = 30  # files
SHOWN = ("passed", "error", "failed", "skipped", "xfailed", "xpassed")


def part_of(nodeid: str) -> str:
    """`e2e` of `tests/e2e/test_chart.py::test_x[y]`."""
    parts = PurePosixPath(nodeid.partition("::")[0]).parts
    return parts[1] if len(parts) > 2 else parts[0]


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def seconds_by_file(reports: Iterable[pytest.TestReport]) -> dict[str, float]:
    """With setups and teardowns, the slowest first: a fixture of many files counts where it was made."""
    found: dict[str, float] = {}
    for report in reports:
        file = report.nodeid.partition("::")[0]
        found[file] = found.get(file, 0.0) + report.duration
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def seconds_by_part(reports: Iterable[pytest.TestReport], building: float) -> dict[str, float]:
    """With setups and teardowns. `building` is what came before the tests, `release` what only `make test-all` runs."""
    found = {"building": building} if building else {}
    for report in reports:
        part = "release" if "release" in report.keywords else part_of(report.nodeid)
        found[part] = found.get(part, 0.0) + report.duration
    return found


def table(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """Rows of Markdown: each test on the cluster, and every other that has something to show."""
    yield "| test | result | time | seen |"
    yield "|---|---|---|---|"
    for report in reports:
        counts = report.when == "call" or report.outcome != "passed"  # a fixture that failed or left a test out
        if counts and (report.user_properties or part_of(report.nodeid) == "e2e"):
            name = report.nodeid.removeprefix("tests/").replace("|", "\\|")
            seen = "; ".join(f"{key}: {value}" for key, value in report.user_properties)
            yield f"| `{name}` | {report.outcome} | {minutes(report.duration)} | {seen} |"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    stats = terminalreporter.stats
    reports = [r for name in ("", *SHOWN) for r in stats.get(name, ()) if isinstance(r, pytest.TestReport)]
    building = float(os.environ.get("LLM_OPERATOR_BUILD_SECONDS", 0))
    times = seconds_by_part(reports, building)
    terminalreporter.section("time by part, in minutes")
    for part, seconds in {**times, "in all": sum(times.values())}.items():
        terminalreporter.write_line(f"{minutes(seconds):>7}  {part}")
    terminalreporter.section("slowest files, in minutes")
    for file, seconds in [*seconds_by_file(reports).items()][:SLOWEST]:
        terminalreporter.write_line(f"{minutes(seconds):>7}  {file}")
    if config.option.markexpr == "":  # make test-all
        terminalreporter.section("what the tests saw")
        for row in table(reports):
            terminalreporter.write_line(row)
