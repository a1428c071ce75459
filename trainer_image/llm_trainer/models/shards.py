"""Writing a model's weights as transformers stores them, in parts: no process holds more of it than a shard.

Every process writes some of the shards, and hashes what it writes: nothing is read again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from blake3 import blake3
from pydantic import BaseModel, TypeAdapter
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from llm_trainer.checkpoint.files import FileRecord, write_durably
from llm_trainer.models.joined import Joined
from llm_trainer.models.placement import give_back, shape_of, whole
from llm_trainer.models.weights import DATA_TYPES, INDEX, WHOLE
from llm_trainer.runtime.errors import StageError
from llm_trainer.runtime.process_group import ProcessGroup

SHARD_BYTES = 2**29
LAYER = re.compile(r"(.*?\.\d+)\.")
TYPE_NAMES = {data_type: name for name, data_type in DATA_TYPES.items()}
State = dict[str, Tensor]
Stored = Mapping[str, Tensor | Joined]


@dataclass
class Shard:
    """Weights in one file; those of a block are converted together, as families merge what is of one layer."""

    blocks: list[list[str]] = field(default_factory=list)
    size: int = 0


class Written(BaseModel):
    """A shard, as the process that wrote it tells the others."""

    record: FileRecord
    names: list[str]
    elements: int
    size: int
    not_finite: str | None


WRITTEN = TypeAdapter(list[Written])


@dataclass(frozen=True)
class Weights:
    """A model's, by its own names.

    ``group``: the processes that hold them, the same on all, whole or spread; None where this one alone does.
    """

    model: PreTrainedModel
    state: Stored
    group: ProcessGroup | None


def write_weights(weights: Weights, folder: Path) -> list[FileRecord]:
    """The files that were written, but for the index, on every process; a collective of the weights' group.

    Raises StageError, on every process, for weights that are not finite.
    """
    model, state, group = weights.model, weights.state, weights.group
    shards = planned(model, state)
    rank, world_size = (group.rank, group.world_size) if group else (0, 1)
    names = [WHOLE] if len(shards) == 1 else [
        f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)
    ]  # fmt: skip
    own = []
    for number, (name, shard) in enumerate(zip(names, shards, strict=True)):
        stored, mine = {}, number % world_size == rank
        for block in gathered(shard, state, mine=mine):
            stored.update(revert_weight_conversion(model, block))
        if mine:
            own.append(write_shard(folder / name, stored))
        give_back()
    everyone = [written for told in group.gather(own, WRITTEN) for written in told] if group else own
    if bad := next((written.not_finite for written in everyone if written.not_finite), None):
        raise StageError(
            f"the model is not published: {bad} holds numbers that are not finite; lower optimizer.learningRate"
        )
    if len(shards) > 1 and rank == 0:
        write_durably(folder / INDEX, index_of(everyone))
    return [written.record for written in everyone]


def planned(model: PreTrainedModel, state: Stored) -> list[Shard]:
    """The same on every process. A layer that is larger than a shard has one of its own."""
    blocks: dict[str, list[str]] = {}
    for name in to_write(model, state):
        within = LAYER.match(name)
        blocks.setdefault(within[1] if within else name, []).append(name)
    shards = [Shard()]
    for block in blocks.values():
        size = sum(shape_of(state[name]).numel() * state[name].element_size() for name in block)
        if shards[-1].blocks and shards[-1].size + size > SHARD_BYTES:
            shards.append(Shard())
        shards[-1].blocks.append(block)
        shards[-1].size += size
    return shards


def to_write(model: PreTrainedModel, state: Stored) -> list[str]:
    """Names, without those of tied weights that transformers ties again, and those that it doesn't want."""
    kept: dict[int, str] = {}
    tied, ignored = model.all_tied_weights_keys, model._keys_to_ignore_on_save or ()
    for name in sorted(state, key=lambda name: name in tied):  # stable: what others are tied to comes first
        if name not in ignored:
            kept.setdefault(identity(state[name]), name)
    chosen = set(kept.values())
    return [name for name in state if name in chosen]


def identity(tensor: Tensor | Joined) -> int:
    """The same for tied weights alone: of what holds the numbers, which spread weights do not."""
    if isinstance(tensor, Joined) or hasattr(tensor, "ds_id") or not tensor.numel():
        return id(tensor)
    return int(tensor.untyped_storage().data_ptr() + tensor.storage_offset() * tensor.element_size())


def gathered(shard: Shard, state: Stored, *, mine: bool) -> Iterator[State]:
    """Block by block, on CPU; none where the shard is not this process's."""
    for names in shard.blocks:
        there = {name: joined(state[name]) for name in names}
        with whole(there.values()):
            # a copy of what is spread: it goes when it is not whole any more
            block = {name: on_cpu(weight) for name, weight in there.items()} if mine else {}
        del there
        give_back()
        if mine:
            yield block


def joined(weight: Tensor | Joined) -> Tensor:
    return weight.gathered() if isinstance(weight, Joined) else weight


def on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=hasattr(tensor, "ds_id"))


def write_shard(file: Path, tensors: State) -> Written:
    """In the safetensors format: the length of a header, the header, and the numbers. Hashed and on the disk."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that each is aligned
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = elements = 0
    for name in names:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        elements += tensors[name].numel()
        kind, shape = TYPE_NAMES[tensors[name].dtype], list(tensors[name].shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest, not_finite = blake3(), None
    with file.open("wb") as stream:
        for part in (len(text).to_bytes(8, "little"), text):
            digest.update(part)
            stream.write(part)
        for name in names:
            tensor = tensors.pop(name).contiguous()
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                not_finite = not_finite or name
            numbers = tensor.view(-1).view(torch.uint8).numpy().data
            digest.update(numbers)
            stream.write(numbers)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)  # whoever serves it may be another user
        os.fsync(stream.fileno())
    record = FileRecord(path=file.name, size=8 + len(text) + end, blake3=digest.hexdigest())
    return Written(record=record, names=sorted(names), elements=elements, size=end, not_finite=not_finite)


def index_of(shards: list[Written]) -> str:
    files = {name: written.record.path for written in shards for name in written.names}
    metadata = {
        "total_parameters": sum(written.elements for written in shards),
        "total_size": sum(written.size for written in shards),
    }
    return json.dumps({"metadata": metadata, "weight_map": dict(sorted(files.items()))}, indent=2) + "\n"
