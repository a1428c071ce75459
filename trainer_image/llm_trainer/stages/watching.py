"""The loss watch of one stage: what it remembers, what it has decided, and who is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_trainer.checkpoint.rollbacks import (
    ROLLBACKS,
    Rollback,
    is_abandoned,
    place_of,
    rate_of,
    read_rollbacks,
    write_rollbacks,
)
from llm_trainer.config import LossWatch
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.run import Run
from llm_trainer.stages.loss_watch import Action, Decision, Memory, Seen, after_evaluation, after_step, jump, safe_step


class Watching:
    """The same on every rank. Without settings it decides nothing, and keeps to what was decided before."""

    def __init__(self, run: Run, settings: LossWatch | None, patience: int) -> None:
        """``patience``: the most steps in a row that may be left out in so short a stage."""
        self.run, self.settings, self.patience = run, settings, patience
        self.memory = Memory()
        self.rollbacks: list[Rollback] = []
        self._noticed = 0  # of them

    def place(self, step: int) -> int:
        """Which share of the data the step after `step` others has."""
        return place_of(step, self.rollbacks)

    @property
    def rate(self) -> float:
        """Factor of the schedule's learning rate."""
        return self.memory.rate * rate_of(self.rollbacks)

    @property
    def rolls_back(self) -> bool:
        return self.settings is not None and self.settings.rollbacks > 0

    @property
    def is_worried(self) -> bool:
        """The last steps are off: they may yet be rolled back, so nobody should be given what they have made."""
        return self.memory.off > 0

    def safe_step(self, step: int) -> int | None:
        """A checkpoint up to this one must be kept; None if nothing will go back to it."""
        return safe_step(self.memory, step) if self.settings else None

    # --- what it sees ---

    def see(self, seen: Seen, *, last: bool) -> Decision | None:
        """``last``: whether it is the stage's last step."""
        if self.settings is None:
            return None
        made = len(self.rollbacks)
        self.memory, decision = after_step(self.settings, self.memory, seen, made, self.patience, last=last)
        return decision

    def see_evaluation(self, figures: dict[str, float], step: int, *, last: bool) -> Decision | None:
        """Raises ConfigurationError where a plateau is watched and there is no held-out loss."""
        watch = self.settings
        if watch is None or not watch.looks_at_held_out:
            return None
        if "loss" not in figures:
            raise ConfigurationError(
                f"lossWatch.{watch.looks_at_held_out} looks at the held-out loss, and this stage has none; set "
                "validationFraction, or remove it"
            )
        self.memory, decision = after_evaluation(watch, self.memory, figures["loss"], step, last=last)
        return decision

    # --- what it does ---

    def tell(self, decision: Decision, step: int) -> None:
        """As a notice, which becomes an event, in the metrics and in the history, where it is a row with `action`.

        Steps in a row that are left out are one notice.
        """
        self._count(decision.action)
        if decision.action is not Action.SKIP or self.memory.skipped == 1:
            self.run.board.notice(decision.action.value, decision.message)
        if self.run.group.is_first:
            self.run.history.append(step, action=decision.action, message=decision.message)

    def suspects(self, decision: Decision, step: int) -> tuple[int, int]:
        """Places of the data that a rollback jumps over: the first, and the one after the last. ``step``: made."""
        begin, end = self.place(decision.safe), self.place(step - 1) + 1
        return begin, jump(begin, end, self.rollbacks, self.settings.window if self.settings else 0)

    def roll_back(self, decision: Decision, step: int, to: int, data: str, checkpoints: Path) -> None:
        """Note it down before anything of it happens.

        ``step``: that were made; ``to``: the last one that counts; ``data``: the suspects in words.
        """
        factor = self.settings.rate_factor if self.settings else 1.0
        slower = f"; the learning rate is {self.rate * factor:.4g} of its schedule" if factor < 1 else ""
        begin, end = self.suspects(decision, step)
        made = Rollback(
            step=step,
            to=to,
            begin=begin,
            end=end,
            message=f"{decision.message}; goes back to the newest checkpoint up to step {to} and jumps over "
            f"{data}{slower}",
            rate_factor=factor,
        )
        self.rollbacks = [*self.rollbacks, made]
        if self.run.group.is_first:
            write_rollbacks(checkpoints, self.rollbacks)
        self.run.group.barrier()
        self._count(Action.ROLL_BACK)

    def mark(self, step: int) -> None:
        """Tell of rollbacks that the history doesn't have: one that was made now, or in whose midst a process died.

        They are rows of the step that it goes on from, so that a resume doesn't cut them off.
        """
        if self.run.group.is_first and self.rollbacks:
            told = {row.get("rollback") for row in self.run.history.actions()}
            for number, made in enumerate(self.rollbacks, start=1):
                if number not in told:
                    more = {"rollback": number, "from": made.step, "jumpedOver": [made.begin, made.end]}
                    self.run.history.append(step, action=Action.ROLL_BACK, message=made.message, **more)
        for made in self.rollbacks[self._noticed :]:
            self.run.board.notice(Action.ROLL_BACK.value, made.message)
        self._noticed = len(self.rollbacks)

    def _count(self, action: Action) -> None:
        self.run.board.metrics.watch_actions.labels(self.run.config.stage, action).inc()

    # --- checkpoints ---

    def take_up(self, checkpoints: Path) -> None:
        """What an attempt before has decided."""
        own = read_rollbacks(checkpoints) if self.run.group.is_first else []
        self.rollbacks = self.run.group.first(own, ROLLBACKS)

    def is_abandoned(self, state: Path, step: int) -> bool:
        """Of a checkpoint by its state, whether a rollback that came after it has made it void."""
        try:
            known = len(json.loads(state.read_text())["watch"]["rollbacks"])
        except (OSError, ValueError, KeyError, TypeError):
            known = 0
        return is_abandoned(step, known, self.rollbacks)

    def write(self) -> dict[str, Any]:
        """For a checkpoint's state."""
        return {
            "memory": self.memory.model_dump(mode="json", by_alias=True),
            "rollbacks": ROLLBACKS.dump_python(self.rollbacks, mode="json", by_alias=True),
        }

    def read(self, state: dict[str, Any]) -> None:
        """Of a checkpoint that may be older than what was decided since; its own list counts where the file is gone."""
        self.memory = Memory.model_validate(state.get("memory", {}))
        known = ROLLBACKS.validate_python(state.get("rollbacks", []))
        self.rollbacks = max(self.rollbacks, known, key=len)
        self._noticed = max(self._noticed, len(known))  # an attempt that has saved since has told of them
