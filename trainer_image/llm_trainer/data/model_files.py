"""Whether the files of a model's folder are whole, before any GPU is taken: by headers and numbers, without loading."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_trainer.data.files import told
from llm_trainer.data.true_format import POINTER
from llm_trainer.runtime.errors import DataError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
HEADER_BYTES = 100 << 20  # the format's own limit
SCANNED = 4 << 30  # bytes of a folder that are looked at for numbers that are not finite; of more, evenly chosen ones
BLOCK = 1 << 20
SHOWN = 4

# By what bits a number is not finite: (numpy's type, mask, value of the masked bits); float8_e4m3fn has no infinity.
_NOT_FINITE: dict[str, tuple[str, int, int]] = {
    "F64": ("<u8", 0x7FF << 52, 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23, 0xFF << 23),
    "F16": ("<u2", 0x1F << 10, 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7, 0xFF << 7),
    "F8_E5M2": ("u1", 0x1F << 2, 0x1F << 2),
    "F8_E4M3": ("u1", 0x7F, 0x7F),
}
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
         "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
         "C64": 64}  # fmt: skip


class Tensor(NamedTuple):
    """Where a tensor lies in its file."""

    name: str
    type: str
    begin: int
    end: int


@dataclass(frozen=True)
class ModelFolder:
    """A folder that a user's URI names, and the field where the user did."""

    path: Path
    field: str
    uri: str

    def bad(self, problem: str) -> DataError:
        return DataError(f"{self.field}: {self.uri} can't be used: {problem}")


def check_model_files(folder: ModelFolder, alive: Callable[[], None] = lambda: None) -> None:
    """Raises DataError for a folder whose weights are missing, pointers, cut, of another length or not finite.

    `alive` is called now and then. Memory: a block of a file.
    """
    if not folder.path.is_dir():
        raise folder.bad("there is no such folder")
    refuse_pointers(folder)
    with told(folder.field, folder.uri):
        tensors = {file: list(read_header(folder, file)) for file in _weight_files(folder)}
        size = sum(tensor.end - tensor.begin for found in tensors.values() for tensor in found)
        share = min(1.0, SCANNED / max(1, size))
        for file, found in tensors.items():
            _refuse_not_finite(folder, file, found, share, alive)


def refuse_pointers(folder: ModelFolder) -> None:
    """Raises DataError for links without their files, and for what a clone without Git LFS has in their place."""
    with told(folder.field, folder.uri):
        files = [entry for entry in folder.path.iterdir() if entry.is_file() or entry.is_symlink()]
        dangling = sorted(file.name for file in files if not file.exists())
        pointers = sorted(file.name for file in files if file.is_file() and _is_pointer(file))
    if dangling:
        raise folder.bad(f"{_listed(dangling)} lead nowhere: copy the files themselves (cp -rL), not the links")
    if pointers:
        what = "is a Git LFS pointer" if len(pointers) == 1 else "are Git LFS pointers"
        raise folder.bad(
            f"{_listed(pointers)} {what}, three lines in the place of the file; fetch with git lfs pull in a clone of "
            "it, and copy that"
        )


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(POINTER)) == POINTER


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _weight_files(folder: ModelFolder) -> list[Path]:
    """In transformers' order of preference."""
    path = folder.path
    if (path / ADAPTER_CONFIG).is_file():
        if not (path / ADAPTER).is_file():
            raise folder.bad(f"there is no {ADAPTER}")
        return [path / ADAPTER]
    if not (path / "config.json").is_file():
        raise folder.bad("it holds no transformers model: there is no config.json")
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if (path / INDEX).is_file():
        return _files_of_index(folder)
    others = sorted(file.name for file in path.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".h5", ".gguf"))
    if others:
        raise folder.bad(
            f"its weights are {_listed(others)} alone, and {others[0].rpartition('.')[2]} is not read, as it may run "
            "code or is of another library; load it where you trust it and save_pretrained it anew, as safetensors"
        )
    raise folder.bad(f"there are no weights: neither {WEIGHTS} nor {INDEX}")


def _files_of_index(folder: ModelFolder) -> list[Path]:
    try:
        index: Any = json.loads((folder.path / INDEX).read_bytes())
        places = {str(name): str(file) for name, file in index["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise folder.bad(f"{INDEX} can't be read: {type(error).__name__}: {error}; copy it again") from error
    names = sorted(set(places.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise folder.bad(f"{INDEX} names {_listed(outside)}, which is no file of the folder")
    missing = [name for name in names if not (folder.path / name).is_file()]
    if missing:
        raise folder.bad(f"of {len(names)} files of {INDEX} {len(missing)} are missing: {_listed(missing)}; copy them")
    for name in names:
        there = {tensor.name for tensor in read_header(folder, folder.path / name)}
        lacking = sorted(tensor for tensor, file in places.items() if file == name and tensor not in there)
        if lacking:
            raise folder.bad(f"{INDEX} says that {name} has {_listed(lacking)}, and it doesn't; copy the folder again")
    return [folder.path / name for name in names]


def read_header(folder: ModelFolder, file: Path) -> Iterator[Tensor]:
    """The tensors of a safetensors file. Raises DataError unless the file is as long as they say, and no longer."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(HEADER_BYTES, size - 8):
            raise folder.bad(f"{file.name} of {size:,} bytes is no safetensors file, or is cut; copy it again")
        try:
            header: Any = json.loads(stream.read(length))
            found = [
                Tensor(name, str(entry["dtype"]), 8 + length + int(begin), 8 + length + int(end))
                for name, entry in header.items()
                if name != "__metadata__"
                for begin, end in [entry["data_offsets"]]
                if not _wrong_size(entry, int(end) - int(begin))
            ]
            tensors = len(header) - ("__metadata__" in header)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise folder.bad(f"the header of {file.name} can't be read: {error}; copy it again") from error
    if len(found) < tensors:
        raise folder.bad(f"the header of {file.name} gives tensors other lengths than their shapes; copy it again")
    end = max((tensor.end for tensor in found), default=8 + length)
    if end != size or any(tensor.begin < 8 + length for tensor in found):
        raise folder.bad(f"{file.name} has {size:,} bytes instead of {end:,}: it is cut, or altered; copy it again")
    yield from found


def _wrong_size(entry: Any, size: int) -> bool:
    bits = _BITS.get(str(entry["dtype"]))
    return size < 0 or (bits is not None and size * 8 != prod(int(length) for length in entry["shape"]) * bits)


def _refuse_not_finite(
    folder: ModelFolder, file: Path, tensors: list[Tensor], share: float, alive: Callable[[], None]
) -> None:
    with file.open("rb", buffering=0) as stream:
        for tensor in tensors:
            if tensor.type not in _NOT_FINITE:
                continue
            for begin, end in _blocks(tensor, share):
                alive()
                if not_finite(os.pread(stream.fileno(), end - begin, begin), tensor.type):
                    raise folder.bad(
                        f"{tensor.name} in {file.name} has numbers that are not finite (NaN or infinity): the training "
                        "that wrote it was lost; take an earlier checkpoint of it"
                    )


def _blocks(tensor: Tensor, share: float) -> Iterator[tuple[int, int]]:
    """Of a tensor's bytes; the first one always, and evenly so many that they are about the share."""
    count = -(-(tensor.end - tensor.begin) // BLOCK)
    for number in range(count):
        if number == 0 or int((number + 1) * share) > int(number * share):
            begin = tensor.begin + number * BLOCK
            yield begin, min(begin + BLOCK, tensor.end)


def not_finite(data: bytes, kind: str) -> bool:
    """Whether numbers of a floating type of safetensors have a NaN or an infinity among them."""
    of, mask, value = _NOT_FINITE[kind]
    numbers: NDArray[Any] = np.frombuffer(data, dtype=of)
    return bool(((numbers & numbers.dtype.type(mask)) == value).any())
