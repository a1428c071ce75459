"""Which files of a model's folder are fetched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from llm_trainer.config import InputUse
from llm_trainer.config.remote import shown
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.pickled import is_pickled
from llm_trainer.storage.remote_files import Listing, RemoteFile

SMALL = (".json", ".txt", ".model", ".jinja", ".md", ".tiktoken")  # beside a model's weights
WEIGHTS = ".safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def needed(uri: str, listing: Listing, use: InputUse, *, allow_pickle: bool = False) -> Listing:
    """Of data all that was listed. Raises as `of_model`."""
    if use == "data":
        return listing
    return replace(listing, files=of_model(uri, listing.files, weights=use == "model", allow_pickle=allow_pickle))


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
