"""What a loop keeps with its checkpoints: how it saves while it goes on, and goes on from what it saved."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from llm_trainer.checkpoint.flight import Flight
from llm_trainer.checkpoint.random_states import RandomStates
from llm_trainer.checkpoint.snapshot import Snapshot
from llm_trainer.checkpoint.store import CheckpointStore
from llm_trainer.config import TrainingSettings, Tune
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.history import dump_json
from llm_trainer.runtime.randomness import draw_apart
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fingerprints import changed_functions, function_digests
from llm_trainer.stages.tuning import Tuning
from llm_trainer.stages.watching import Watching
from llm_trainer.tracking.start import Trackers

BAD_STEPS = 10  # so many steps in a row whose gradient is not finite end the attempt; half of them, of a short stage
STATE = "state.json"  # of a checkpoint
COUNTS = ("step", "tokens", "applied", "bad")  # of a loop, over all attempts


class Resumable(ABC):
    """One process of one attempt. The methods that a stage gives are called by all ranks together."""

    def __init__(self, run: Run, settings: TrainingSettings, steps: int) -> None:
        self.run, self.settings, self.steps = run, settings, steps
        self.store = CheckpointStore(run.config, settings.checkpoint.keep, run.group)
        self.step = self.tokens = self.applied = 0  # steps, tokens and applied steps so far, over all attempts
        self.bad = 0  # steps in a row that were left out, over all attempts
        self.patience = min(BAD_STEPS, max(1, steps // 2))
        self.watching = Watching(run, settings.loss_watch, self.patience)
        self.tuning = Tuning(run, self.tune(), settings.optimizer.learning_rate)
        self.flight: Flight | None = None  # the checkpoint that is being written
        self.told_of_memory = False

    # --- what a stage gives ---

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for the data to go on where it was."""

    def tune(self) -> Tune | None:
        """What to try before the first step, if anything."""
        return None

    @abstractmethod
    def write(self, snapshot: Snapshot) -> dict[str, Any]:
        """Fill a checkpoint; the state, as JSON, that `read` will be given."""

    @abstractmethod
    def read(self, folder: Path, state: dict[str, Any]) -> None:
        """Take up what `write` wrote."""

    # --- saving ---

    def _save(self) -> None:
        """Copy what a checkpoint holds; it is written while the training goes on, see `_land`."""
        self._land()
        self.run.board.update(phase="Saving")
        with self.run.long():
            self.flight = self.store.begin(self.step, self._write)
        self.run.board.metrics.checkpoint_stall_seconds.observe(self.flight.seconds)
        self.run.board.update(phase="Training")

    def _land(self) -> None:
        """Commit the checkpoint that is being written, if any; waits until it is."""
        if self.flight is None:
            return
        board, flight, self.flight = self.run.board, self.flight, None
        with self.run.long():
            landing = self.store.land(flight, self.run.watchdog.beat, self.watching.safe_step(self.step))
        if landing.in_line and not self.told_of_memory:
            self.told_of_memory = True
            board.notice(
                "CheckpointInLine",
                f"the training waits while {landing.in_line / 2**30:.1f} GiB of each checkpoint are written, because "
                "the pods' memory has no room for a copy of them; raise the memory's limit",
            )
        board.metrics.checkpoint_seconds.observe(landing.seconds)
        board.metrics.checkpoint_step.set(flight.step)
        board.update(checkpoint=self.store.info(landing.folder, flight.step))

    def _write(self, snapshot: Snapshot) -> None:
        RandomStates.now(self.run.group.device).write(snapshot, self.run.group.rank)
        counts = {name: getattr(self, name) for name in COUNTS}
        functions = function_digests(self.run.config)
        state = {**counts, "fingerprint": self.fingerprint(), "functions": functions, **self.write(snapshot)}
        state |= {"watch": self.watching.write(), **self.tuning.write()}
        if self.run.group.is_first:
            snapshot.add(snapshot.folder / STATE, dump_json(state))

    # --- going on ---

    def _resume(self) -> bool:
        """Whether there was anything to go on from."""
        self.store.claim()
        self.watching.take_up(self.store.folder)
        self.tuning.take_up(self.store.folder)
        found = self._take_up_newest()
        if self.run.group.is_first:
            again = self.run.history.begin(self.step if found else None, self.run.board.clock)
            self.run.board.metrics.lost_seconds.set(again)
            Trackers(self.run.config, self.run.board)
        self.watching.mark(self.step)
        return found

    def _take_up_newest(self) -> bool:
        """Go on from the newest good checkpoint of those that no rollback has made void, if there is one."""
        if self.watching.rollbacks:
            self.store.discard(lambda folder, step: self.watching.is_abandoned(folder / STATE, step))
        folder, notices = self.store.newest()
        for notice in notices:
            self.run.board.notice(notice.reason, notice.message)
        if folder is not None:
            self._load(folder)
        return folder is not None

    def _go_back(self) -> None:
        """As after a rollback, or trials: the rows of steps that are no more go."""
        found = self._take_up_newest()
        if self.run.group.is_first:
            self.run.history.cut_after(self.step if found else -1)
        self.watching.mark(self.step)

    def _load(self, folder: Path) -> None:
        state = self._state(folder)
        if state["fingerprint"] != self.fingerprint():
            raise ConfigurationError(
                f"checkpoint {folder.name} was made from other data or batch settings: {state['fingerprint']} "
                f"instead of {self.fingerprint()}; restore them, or remove {self.store.uri} to train the stage anew"
            )
        for notice in changed_functions(state.get("functions", {}), function_digests(self.run.config), folder.name):
            self.run.board.notice("FunctionChanged", notice)
        for name in COUNTS:
            setattr(self, name, int(state[name]))
        self.watching.read(state.get("watch", {}))
        self.tuning.read(state)
        self.read(folder, state)
        if states := RandomStates.read(folder, self.run.group.rank):
            states.restore(self.run.group.device)  # last: `read` may draw
        else:
            draw_apart(self.settings.seed + self.step, self.run.group.rank)
        self.run.board.update(step=self.step, tokens=self.tokens, checkpoint=self.store.info(folder, self.step))
        if self.run.group.is_first:
            print(f"resumed from {folder.name}", flush=True)

    def _state(self, folder: Path) -> dict[str, Any]:
        """Raises ConfigurationError for a checkpoint of a trainer that kept it otherwise."""
        try:
            state: dict[str, Any] = json.loads((folder / STATE).read_text())
        except FileNotFoundError:
            state = {}
        if missing := [name for name in (*COUNTS, "fingerprint") if name not in state]:
            raise ConfigurationError(
                f"checkpoint {folder.name} was made by another version of the trainer: it has no {', '.join(missing)}; "
                f"set spec.image to that version, or remove {self.store.uri} to train the stage anew"
            )
        return state
