"""How fast a stage goes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SPEED_STEPS = 20  # tokens per second is a mean over so many steps


@dataclass
class Speed:
    """Mean over the last steps; saving and evaluating don't count."""

    tokens: deque[int] = field(default_factory=lambda: deque(maxlen=SPEED_STEPS))
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=SPEED_STEPS))

    def see(self, tokens: int, seconds: float) -> None:
        self.tokens.append(tokens)
        self.seconds.append(seconds)

    @property
    def seconds_per_step(self) -> float:
        return sum(self.seconds) / max(1, len(self.seconds))

    @property
    def tokens_per_second(self) -> float:
        return sum(self.tokens) / max(1e-9, sum(self.seconds))
