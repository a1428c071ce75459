"""What a user sees while something is built, and that nothing is left when it ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.cluster.steps import Step, StepError, duration, in_order, last_line, run, startable


def shell(name: str, script: str, *after: str) -> Step:
    return Step(name, ["sh", "-euc", script], after)


def test_a_duration_is_in_words() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 59.6, 725)] == ["0 s", "59 s", "1 min 0 s", "12 min 5 s"]


@pytest.mark.parametrize(
    ("output", "telling", "line"),
    [
        ("", r"\w", ""),
        ("one\ntwo\n\n", r"\w", "two"),
        ("10%\r20%\r30%", r"\w", "30%"),
        ("\x1b[1mbold\x1b[0m\n", r"\w", "bold"),
        ("[1/2] STEP 3/7: RUN make\nchecking\n", r"STEP \d", "[1/2] STEP 3/7: RUN make"),
        ("x" * 200, r"\w", "x" * 100),
    ],
)
def test_the_newest_telling_line_of_an_output(output: str, telling: str, line: str) -> None:
    assert last_line(output, telling) == line


def test_steps_in_order_start_one_after_the_other_and_after_what_they_wait_for() -> None:
    first, second, third = in_order([shell("first", ":"), shell("second", ":", "other"), shell("third", ":")])
    assert [set(step.after) for step in (first, second, third)] == [set(), {"first", "other"}, {"second"}]
    assert startable([first, second, third], {"first", "second", "third"}) == [first]
    assert startable([second, third], {"second", "third"}) == [second], "what isn't planned was done before"


def test_each_step_is_told_of_when_it_begins_and_ends_and_while_it_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run([shell("slow", "echo busy; sleep 0.5"), shell("next", f"touch {tmp_path}/x", "slow")], tmp_path / "log", 0.2)
    told = re.sub(r"\d+ s\b", "N s", capfd.readouterr().err).splitlines()
    assert [line for line in told if "[" in line] == [
        "[1/2] slow …", "[1/2] slow: done in N s", "[2/2] next …", "[2/2] next: done in N s",
    ]  # fmt: skip
    assert "    slow for N s: busy" in told
    assert told[-1].startswith("all done in")
    assert (tmp_path / "x").exists()


def test_a_failure_ends_what_runs_beside_it_and_shows_the_end_of_its_log(tmp_path: Path) -> None:
    beside = shell("beside", f"trap 'touch {tmp_path}/ended; exit 1' TERM; touch {tmp_path}/up; sleep 60 & wait")
    broken = shell("broken", f"while [ ! -e {tmp_path}/up ]; do sleep 0.01; done; echo no such thing >&2; exit 3")
    with pytest.raises(StepError, match="broken failed with 3") as failure:
        run([beside, broken, shell("never", f"touch {tmp_path}/never", "broken")], tmp_path / "log")
    assert "no such thing" in str(failure.value)
    assert str(tmp_path / "log/broken.log") in str(failure.value)
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "never").exists()
