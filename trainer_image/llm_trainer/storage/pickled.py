"""Pickled weights become safetensors, where a user has allowed it (`allowPickle`).

torch reads them by its list of what a pickle may hold (weights_only), mapped to memory, and a tensor is written at a
time: a fetcher's gigabyte is enough for any model. The pickles go then.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from llm_trainer.checkpoint.files import FileRecord
from llm_trainer.runtime.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

NAME = re.compile(r"(pytorch|adapter)_model(-\d{5}-of-\d{5})?\.bin")
INDEX = "model.safetensors.index.json"
# torch's types by safetensors' names
TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


def is_pickled(path: str) -> bool:
    return NAME.fullmatch(PurePosixPath(path).name) is not None


def safetensors_of(path: str) -> str:
    """Where the tensors of a pickle go: transformers' own name."""
    whole = PurePosixPath(path)
    name = whole.name.removesuffix(".bin").replace("pytorch_model", "model")
    return str(whole.with_name(f"{name}.safetensors"))


def converted(uri: str, folder: Path, pickles: Sequence[FileRecord]) -> list[FileRecord]:
    """What is in `folder` beside them now. Raises DataError for a file that holds more than tensors, or is damaged."""
    found: list[FileRecord] = []
    places: dict[str, str] = {}
    total = 0
    for record in pickles:
        target = safetensors_of(record.path)
        tensors = read_tensors(uri, folder / record.path)
        made = write_tensors(tensors, folder / target)
        found.append(FileRecord(path=target, size=made[0], sha256=made[1]))
        places |= dict.fromkeys(tensors, PurePosixPath(target).name)
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(pickles) > 1:
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=1).encode() + b"\n"
        path = str(PurePosixPath(found[0].path).with_name(INDEX))
        (folder / path).write_bytes(text)
        found.append(FileRecord(path=path, size=len(text), sha256=hashlib.sha256(text).hexdigest()))
    return found


def read_tensors(uri: str, file: Path) -> dict[str, Tensor]:
    import torch

    if not zipfile.is_zipfile(file):
        raise DataError(f"{uri}: {file.name} is not of torch's format since 1.6, or damaged; name safetensors")
    try:
        told: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(
            f"{uri}: {file.name} is not read, as it is damaged or holds more than tensors: {first}"
        ) from error
    if not isinstance(told, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in told.values()):
        raise DataError(f"{uri}: {file.name} holds more than tensors by their names; name safetensors")
    return {str(name): tensor.detach() for name, tensor in told.items()}


def write_tensors(tensors: Mapping[str, Tensor], to: Path) -> tuple[int, str]:
    """A file of safetensors: its bytes, and its sha256. Tensors that share memory are written each."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        kind = TYPES.get(str(tensor.dtype).removeprefix("torch."))
        if kind is None:
            raise DataError(f"{to.name}: {name} is of {tensor.dtype}, which safetensors don't have")
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest, new = hashlib.sha256(), to.with_name(f".{to.name}.new")
    with new.open("wb") as stream:
        for part in (struct.pack("<Q", len(text)), text):
            stream.write(part)
            digest.update(part)
        for tensor in tensors.values():
            data = bytes_of(tensor)
            stream.write(data)
            digest.update(data)
        stream.flush()
        os.fsync(stream.fileno())
    new.rename(to)
    return 8 + len(text) + at, digest.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
