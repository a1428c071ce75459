"""What a stage asks of the process that fetches, and what it is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from llm_trainer.config import MountedCredentials, RemoteInput
from llm_trainer.config.attempt import InputUse
from llm_trainer.config.remote import shown
from llm_trainer.protocol import FetchedInput
from llm_trainer.runtime.errors import ConfigurationError

INPUTS = "inputs.json"  # of a run folder: what was fetched for it, at which revision


class InputFetched(BaseModel):
    """A remote URI, and the pvc:// URI that stands for it from now on."""

    uri: str
    use: InputUse
    place: str
    revision: str
    bytes: int
    files: int
    license: str = ""
    streamed: bool = False  # it was listed, and is read where it lies


class Request(BaseModel):
    claim: str  # of the storage
    cache: str  # the folder of the cache in it, in this pod
    writer: str  # the training's uid
    inputs: list[RemoteInput]
    credentials: list[MountedCredentials] = []
    before: list[InputFetched] = []  # by an earlier attempt of the run


def fetched_input(uri: str, revision: str, size: int, licence: str) -> FetchedInput:
    """In words that a status has room for."""
    said = shown(uri).encode("ascii", "replace").decode()[:256]
    cleaned = "".join(sign if " " <= sign <= "~" else "?" for sign in licence)[:64]
    return FetchedInput(uri=said, revision=revision, bytes=size, license=cleaned)


Many = TypeAdapter(list[InputFetched])


def read_inputs(run_folder: Path) -> list[InputFetched]:
    """What data preparation has fetched for a run. Raises ConfigurationError for a file that was altered."""
    file = run_folder / INPUTS
    try:
        return Many.validate_json(file.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ConfigurationError(
            f"{file} is not as it was written; remove it, and have the data prepared anew"
        ) from error
