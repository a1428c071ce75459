"""The product that tells whether a CPU's matrix unit works, on the CPU that is here."""

from __future__ import annotations

from llm_trainer.runtime.instructions import choose_instructions, multiply, survives


def test_what_is_chosen_multiplies_right() -> None:
    assert survives(chosen)


def chosen() -> bool:
    choose_instructions()
    return multiply()
