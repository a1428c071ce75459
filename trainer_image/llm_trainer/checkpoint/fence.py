"""Who may write: of a run folder the training that took it last, of a stage in it that training's newest attempt.

`owners.json` lists the trainings that had the folder, in order. One joins it once, so that a training whose folder was
taken never takes it back, whatever its pods do. The file `attempt` of a stage has the number and the training's uid:
numbers of two trainings don't compare.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, RootModel, ValidationError

from llm_trainer.checkpoint.files import altered, write_durably
from llm_trainer.config import StageConfig
from llm_trainer.runtime.errors import ConfigurationError, StageError, StaleAttemptError

OWNERS, ATTEMPT = "owners.json", "attempt"
SHOWN_FOLDERS = 10


class Owner(BaseModel):
    """A training that had the run folder. `since`: seconds since the epoch."""

    namespace: str
    name: str
    uid: str
    since: float

    def __str__(self) -> str:
        return f"LLMTraining {self.namespace}/{self.name} (uid {self.uid})"


class Owners(RootModel[list[Owner]]):
    """The last one has it now."""


def writer_of(config: StageConfig) -> str:
    """Names what is not whole yet: another attempt, which may still live, must not write into it."""
    return f"{config.uid[:8]}-{config.attempt}"


def temporary_name(config: StageConfig, name: str) -> str:
    return f".tmp-{writer_of(config)}-{name}"


@dataclass(frozen=True)
class Fence:
    """Of one attempt."""

    config: StageConfig

    @property
    def _stage(self) -> Path:
        return Path(self.config.stage_folder) / ATTEMPT

    def owners(self) -> list[Owner]:
        """Raises ConfigurationError for a list that was altered."""
        file = Path(self.config.run_folder) / OWNERS
        try:
            return Owners.model_validate_json(file.read_bytes()).root
        except FileNotFoundError:
            return []
        except ValidationError as error:
            raise altered(file, error) from error

    def claim(self) -> None:
        """Take the run folder for the training and the stage for the attempt; rank 0 only. Raises as `check` does."""
        self.check(claiming=True)
        config, owners = self.config, self.owners()
        Path(config.stage_folder).mkdir(parents=True, exist_ok=True)
        if config.uid not in [owner.uid for owner in owners]:
            new = Owner(namespace=config.namespace, name=config.training, uid=config.uid, since=time.time())
            write_durably(Path(config.run_folder) / OWNERS, Owners([*owners, new]).model_dump_json(indent=1))
        write_durably(self._stage, f"{config.attempt} {config.uid}")

    def check(self, *, claiming: bool = False) -> None:
        """Raises what `problem` finds."""
        if problem := self.problem(claiming=claiming):
            raise problem

    def problem(self, *, claiming: bool = False) -> StageError | None:
        """Why this attempt may not write: a StaleAttemptError, or a ConfigurationError for another's folder.

        `claiming`: it is about to take the folder, if that isn't its own yet. Raises nothing: one process asks for all.
        """
        try:
            return self._problem(claiming=claiming)
        except ConfigurationError as error:
            return error

    def _problem(self, *, claiming: bool) -> StageError | None:
        owners = self.owners()
        if self.config.uid in [owner.uid for owner in owners]:
            return self._taken(owners[-1]) if owners[-1].uid != self.config.uid else self._stale()
        if claiming:
            return self._not_to_claim(owners)
        return self._taken(owners[-1]) if owners else None

    def _taken(self, owner: Owner) -> ConfigurationError:
        return ConfigurationError(
            f"{self.config.run_uri} was taken up by {owner}, so this training may not write there any more; a new "
            "LLMTraining whose spec.resumeFrom names the folder takes it back"
        )

    def _stale(self) -> StaleAttemptError | None:
        if not self._stage.exists():
            return None
        number, _, uid = self._stage.read_text(errors="replace").partition(" ")
        if number and not number.isdecimal():
            raise altered(self._stage, f"{number!r} is no number of an attempt")
        if not number or uid not in ("", self.config.uid) or int(number) <= self.config.attempt:
            return None
        return StaleAttemptError(
            f"attempt {number} owns this stage; attempt {self.config.attempt} may not write any more"
        )

    def _not_to_claim(self, owners: list[Owner]) -> ConfigurationError | None:
        uri = self.config.run_uri
        if owners and not self.config.resumes:
            return ConfigurationError(f"{uri} belongs to {owners[-1]}; spec.resumeFrom would take it up")
        if self.config.resumes and not owners:
            return ConfigurationError(f"spec.resumeFrom.uri: {uri} is no run folder; {self._no_owners()}")
        return None

    def _no_owners(self) -> str:
        """What is wrong with a run folder that has no owners, and which others there are."""
        if Path(self.config.run_folder).is_dir():
            return f"it has no {OWNERS}, which every training leaves in its folder"
        folder = Path(self.config.run_folder).parent
        found = sorted(file.parent.name for file in folder.glob(f"*/{OWNERS}"))
        if not found:
            return f"nor is any other folder beside it, in {self.config.run_uri.rpartition('/')[0]}"
        more = f" and {len(found) - SHOWN_FOLDERS} more" if len(found) > SHOWN_FOLDERS else ""
        return f"there are {', '.join(found[:SHOWN_FOLDERS])}{more}"
