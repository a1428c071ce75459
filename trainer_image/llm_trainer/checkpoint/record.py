"""`record.json` in a stage's folder: from which configuration it was made, and how it ended once it has.

So that another training that takes up the folder can tell whether what lies there is what it would make itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from llm_trainer.checkpoint.files import altered, write_durably
from llm_trainer.config import StageConfig
from llm_trainer.protocol import Progress
from llm_trainer.runtime.errors import ConfigurationError

RECORD = "record.json"


class StageRecord(BaseModel):
    """`config` is kept as it was written: a trainer of another version may not be able to read it."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", ser_json_inf_nan="strings"
    )

    config: dict[str, Any]
    digests: dict[str, str] = Field(
        default_factory=dict, description="Of what it was made from, by the names of stages.differences.input_uris."
    )
    end: Progress | None = Field(default=None, description="Rank 0's last word of a stage that has its result.")

    @property
    def uid(self) -> str:
        return str(self.config.get("uid"))

    @property
    def run_uri(self) -> str:
        """Where the run folder lay when this was written; it may have been restored to another place."""
        return str(self.config.get("runUri"))

    @property
    def owner(self) -> str:
        return f"LLMTraining {self.config.get('namespace')}/{self.config.get('training')}"

    def stage_config(self) -> StageConfig:
        """Raises ConfigurationError if a trainer of another version wrote it."""
        try:
            return StageConfig.model_validate(self.config)
        except ValidationError as error:
            raise ConfigurationError(
                f"stage {self.config.get('stage')!r} of {self.run_uri} was made by another version of the trainer, "
                f"whose configuration this one can't read ({error.error_count()} fields); set spec.image to that "
                "version, or give the stage another name: it is then trained anew"
            ) from error

    def moved(self, uri: str, run_uri: str) -> str:
        """A URI in the run folder, where that is `run_uri` now."""
        inside = uri.removeprefix(f"{self.run_uri}/")
        return uri if inside == uri else f"{run_uri}/{inside}"


def record_of(config: StageConfig, digests: dict[str, str], end: Progress | None = None) -> StageRecord:
    return StageRecord(config=config.model_dump(mode="json", by_alias=True), digests=digests, end=end)


def read_record(stage_folder: Path) -> StageRecord | None:
    """None where there is none. Raises ConfigurationError for one that was altered."""
    file = stage_folder / RECORD
    try:
        return StageRecord.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise altered(file, error) from error


def write_record(stage_folder: Path, record: StageRecord) -> None:
    write_durably(stage_folder / RECORD, record.model_dump_json(by_alias=True, indent=1) + "\n")
