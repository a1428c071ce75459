"""The same questions to the base and to the adapter, side by side: what was learned, and what was lost."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from demo.alive import alive
from demo.chat import ask
from demo.fine_tune.facts import Question

MAX_TOKENS = 24
AT_ONCE = 16  # questions under way: the server answers them together
SHOWN = 4


@dataclass(frozen=True)
class Answered:
    question: Question
    answer: str

    @property
    def right(self) -> bool:
        """Whether the answer has one of the accepted texts as words of its own."""
        return any(
            re.search(rf"(?<!\w){re.escape(text)}(?!\w)", self.answer, re.IGNORECASE if len(text) > 2 else 0)
            for text in self.question.accepted
        )


def answers(url: str, model: str, questions: list[Question]) -> list[Answered]:
    """Greedy ones, in the questions' order."""
    done: list[None] = []

    def answer(question: Question) -> Answered:
        found = Answered(question, ask(url, model, question.text, MAX_TOKENS).text)
        done.append(None)
        return found

    asking = alive(f"asking {model} {len(questions)} questions", lambda: f"{len(done)} answers")
    with asking, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(answer, questions))


def score(answered: list[Answered]) -> float:
    """Right answers of 100."""
    return 100 * sum(one.right for one in answered) / len(answered)


def side_by_side(before: list[Answered], after: list[Answered]) -> str:
    """The first answers of each town, as a conversation."""
    step = max(1, len(before) // SHOWN)
    pairs = list(zip(before, after, strict=True))[::step][:SHOWN]
    return "\n".join(
        f"\n  you:    {old.question.text}\n  before: {shown(old)}\n  after:  {shown(new)}" for old, new in pairs
    )


def shown(one: Answered) -> str:
    return " ".join(one.answer.split()) + ("  ✓" if one.right else "  ✗")


def table(scores: dict[str, tuple[float, float]]) -> str:
    """Right answers of 100 before and after, by kind of question."""
    lines = [f"{'right answers of 100':<34}{'before':>8}{'after':>8}"]
    lines += [f"{name:<34}{before:>8.0f}{after:>8.0f}" for name, (before, after) in scores.items()]
    return "\n".join(lines)
