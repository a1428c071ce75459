"""What becomes of layers that each process has compiled: all take them or none."""

from __future__ import annotations

import pytest

from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.stages.compiling import LEAVING, Outcome, verdict

FASTER, SLOWER = Outcome(1.2, 1.0), Outcome(1.0, 1.1)
BROKEN, LEAVES = Outcome(problem="CppCompileError: none"), Outcome(problem=LEAVING)


@pytest.mark.parametrize(
    ("told", "asked", "gain", "why_not"),
    [
        ([FASTER, FASTER], False, 1.2, ""),
        ([SLOWER, SLOWER], False, 1 / 1.1, "compiled they would be 0.91 times as fast"),
        ([SLOWER, SLOWER], True, 1 / 1.1, ""),
        ([FASTER, Outcome(1.0, 1.2)], False, 1.0, "compiled they would be 1.00 times as fast"),
        ([FASTER, BROKEN], False, 0.0, "CppCompileError: none"),
        ([FASTER, LEAVES], True, 0.0, LEAVING),
        ([BROKEN, LEAVES], True, 0.0, "CppCompileError: none"),  # which the next attempt tells
    ],
)
def test_verdict(told: list[Outcome], asked: bool, gain: float, why_not: str) -> None:
    found, said = verdict(told, asked=asked)
    assert said == why_not
    assert found == pytest.approx(gain)


def test_what_was_asked_for_and_can_not_be() -> None:
    with pytest.raises(ConfigurationError, match=r"pretrain.compile: .* \(CppCompileError: none\); leave it out"):
        verdict([FASTER, BROKEN], asked=True)
