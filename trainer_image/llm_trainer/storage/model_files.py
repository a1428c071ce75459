"""Which files of what a URI names are fetched, told by their names before a byte is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from llm_trainer.config import InputUse
from llm_trainer.config.remote import shown
from llm_trainer.data.files import COMPRESSIONS, SUFFIXES, format_of, todo
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.pickled import is_pickled
from llm_trainer.storage.remote_files import Listing, RemoteFile

SMALL = (".json", ".txt", ".model", ".jinja", ".md", ".tiktoken")  # beside a model's weights
WEIGHTS = ".safetensors"
TASKS = (".yaml", ".yml")  # of evaluation
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def needed(uri: str, listing: Listing, use: InputUse, *, allow_pickle: bool = False) -> Listing:
    """Of data all that was listed. Raises DataError for a file that no reader takes, and as `of_model`."""
    if use == "data":
        refuse_other_kinds(uri, listing.files)
        return listing
    return replace(listing, files=of_model(uri, listing.files, weights=use == "model", allow_pickle=allow_pickle))


def refuse_other_kinds(uri: str, files: tuple[RemoteFile, ...]) -> None:
    for file in files:
        path = Path(file.path)
        if format_of(path) not in (*SUFFIXES, *TASKS):
            raise DataError(
                f"{shown(uri)} names {file.path!r}, which ends with none of {', '.join(SUFFIXES)} "
                f"(compressed: {', '.join(COMPRESSIONS)} after it). {todo(path)}"
            )


def of_model(
    uri: str, files: tuple[RemoteFile, ...], *, weights: bool, allow_pickle: bool = False
) -> tuple[RemoteFile, ...]:
    """What transformers reads of a model's folder: safetensors and small files at its top, no code, no other formats.

    Raises DataError for a repository whose weights are pickled alone, unless that is allowed.
    """
    top = min((len(PurePosixPath(file.path).parts) for file in files), default=0)
    flat = [file for file in files if len(PurePosixPath(file.path).parts) == top]
    tensors = [file for file in flat if file.path.endswith(WEIGHTS)]
    pickled = [file.path for file in flat if file.path.endswith(PICKLED)]
    if allow_pickle and not tensors:
        tensors = [file for file in flat if is_pickled(file.path)]
    if weights and not tensors and pickled:
        raise DataError(
            f"{shown(uri)} has pickled weights alone ({pickled[0]}), which may run code when they are read; name a "
            "folder or a revision with safetensors"
            + ("" if allow_pickle else ", or set allowPickle: true beside the uri: tensors alone are read then")
        )
    if weights and not tensors:
        found = ", ".join(file.path for file in flat[:5])
        raise DataError(f"{shown(uri)} has no safetensors ({found}); name a model's folder")
    own = [file for file in tensors if not PurePosixPath(file.path).name.startswith("consolidated")]  # Mistral's twice
    small = [file for file in flat if file.path.endswith(SMALL)]
    return tuple(sorted([*small, *((own or tensors) if weights else ())], key=lambda file: file.path))
