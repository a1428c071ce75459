"""What ZeRO has spread over processes, read by another number of them: no conversion, no second copy on the disk.

ZeRO's partitions are slices of one vector: of each group of parameters (ZeRO 1 and 2), or of each parameter (ZeRO 3).
A rank reads, from files that are mapped to memory, the pieces of its own new slice and no more. DeepSpeed's universal
checkpoints would do the same by a file for each parameter and state, which a step before has to write, and know the
states of Adam alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llm_trainer.runtime.errors import ConfigurationError

STATES, MODEL = "_optim_states.pt", "_model_states.pt"
OPTIMIZER, BASE, PARTITIONS, FLAT = (
    "optimizer_state_dict",
    "base_optimizer_state",
    "single_partition_of_fp32_groups",
    "fp32_flat_groups",
)  # DeepSpeed's keys


def piece(parts: Sequence[torch.Tensor], size: int, begin: int, count: int) -> torch.Tensor:
    """Numbers `begin` to `begin + count` of the vector whose slices of `size` the parts are.

    A part may lack its end, which is padding; that, and what comes after the last part, is 0.
    """
    made = torch.zeros(count, dtype=parts[0].dtype)
    for place, part in enumerate(parts):
        first, last = place * size, place * size + min(size, part.numel())
        low, high = max(first, begin), min(last, begin + count)
        if low < high:
            made[low - begin : high - begin] = part.reshape(-1)[low - first : high - first]
    return made


Shapes = Mapping[str, Sequence[int]]  # of a group's parameters, by name, in their order


class Place(NamedTuple):
    """Of a parameter's partition: the flat group that it is in, from where, and how many numbers."""

    group: int
    offset: int
    size: int


def places(shapes: Sequence[Shapes], processes: int) -> dict[str, Place]:
    """ZeRO 3's, by the names of parameters; ``shapes``: of each group, in its order."""
    found = {}
    for group, named in enumerate(shapes):
        offset = 0
        for name, shape in named.items():
            count = -(-math.prod(shape) // processes)
            found[name] = Place(group, offset, count)
            offset += count
    return found


def overlapping(shapes: Shapes, size: int, rank: int) -> Iterator[tuple[str, int]]:
    """The parameters of a group, and their numbers, of which a partition of ZeRO 1 or 2 has at least a part."""
    begin = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        if begin < (rank + 1) * size and begin + count > rank * size:
            yield name, count
        begin += count


def whole_ones(parts: Sequence[torch.Tensor], shapes: Shapes, before: int, now: int, rank: int) -> torch.Tensor:
    """Muon's momentum with ZeRO 1 and 2: of whole matrices, of all of which the partition has a part.

    ``before``, ``now``: the size of a partition.
    """
    found: dict[str, torch.Tensor] = {}
    for other, part in enumerate(parts):
        begin = 0
        for name, count in overlapping(shapes, before, other):
            found.setdefault(name, part[begin : begin + count])
            begin += count
    return torch.cat([parts[0][:0], *(found[name] for name, _ in overlapping(shapes, now, rank))])


class Partitions:
    """A checkpoint's, of the processes that wrote it; ``files``: by their rank."""

    def __init__(self, files: Sequence[Path]) -> None:
        told = [torch.load(file, map_location="cpu", mmap=True, weights_only=True) for file in files]
        self.states: list[dict[str, Any]] = [each[OPTIMIZER] for each in told]
        self.first = self.states[0]

    def of_groups(self, shapes: Sequence[Shapes], sizes: Sequence[int], rank: int) -> dict[str, Any]:
        """ZeRO 1 and 2: `rank`'s new partitions, which have these sizes."""
        paddings = self.first["group_paddings"] if "zero_stage" in self.first else [0] * len(sizes)
        base, own = self.first[BASE], []
        state: dict[int, dict[str, Any]] = {}
        for group, size in enumerate(sizes):
            weights = [of[PARTITIONS][group] for of in self.states]
            before = weights[0].numel() + paddings[group]
            own.append(piece(weights, before, rank * size, size))
            (key,) = base["param_groups"][group]["params"]
            muon = base["param_groups"][group].get("use_muon", False)
            each = [of[BASE]["state"].get(key, {}) for of in self.states]
            state[key] = {}
            for name, value in each[0].items():
                parts = [one.get(name, torch.empty(0)) for one in each]
                if muon and name == "momentum_buffer":
                    state[key][name] = whole_ones(parts, shapes[group], before, size, rank)
                elif is_flat(name, value, before):
                    state[key][name] = piece(parts, before, rank * size, size)
                else:
                    state[key][name] = value
        return {**self.first, BASE: {**base, "state": state}, PARTITIONS: own}

    def of_parameters(
        self,
        before: Sequence[Shapes],
        now: Sequence[Shapes],
        groups: Sequence[int],
        rank: int,
        processes: int,
    ) -> dict[str, Any]:
        """ZeRO 3: `rank`'s new partitions. ``groups``: the optimizer's group of each flat one of now."""
        old, new = places(before, len(self.states)), places(now, processes)

        def flat(group: int, parts: Sequence[Mapping[int, torch.Tensor]]) -> torch.Tensor:
            """``parts``: by rank and flat group of before; of Muon's groups and AdamW's each has its own states."""
            made = []
            for name in now[group]:
                place, count = old[name], new[name].size
                slices = [of[place.group].narrow(0, place.offset, place.size) for of in parts]
                made.append(piece(slices, place.size, rank * count, count))
            return torch.cat(made)

        base = self.first[OPTIMIZER]
        states = [of[OPTIMIZER]["state"] for of in self.states]
        own = {}
        for group, named in enumerate(now):
            like = old[next(iter(named))].group  # whose numbers, such as the steps made, all have
            size = self.first[FLAT][like].numel()
            own[group] = {
                name: flat(group, [{each: of[each][name] for each in of if name in of[each]} for of in states])
                if is_flat(name, value, size)
                else value
                for name, value in states[0][like].items()
            }
        members = [
            [flat for flat, of in enumerate(groups) if of == group] for group in range(len(base["param_groups"]))
        ]
        param_groups = [
            {**group, "params": params} for group, params in zip(base["param_groups"], members, strict=True)
        ]
        flats = [flat(group, [dict(enumerate(of[FLAT])) for of in self.states]) for group in range(len(now))]
        return {**self.first, OPTIMIZER: {**base, "state": own, "param_groups": param_groups}, FLAT: flats}


def is_flat(name: str, value: Any, size: int) -> bool:
    """Whether a state of the optimizer has a number for each of the partition. Raises ConfigurationError if neither
    that nor one for all.
    """
    if not isinstance(value, torch.Tensor) or value.dim() == 0:
        return False
    if value.shape == (size,):
        return True
    raise ConfigurationError(
        f"the optimizer's state {name!r} of shape {tuple(value.shape)} can't be spread over another number of "
        "processes; use as many nodes and processes as before"
    )


class OtherPartitions:
    """In the place of DeepSpeed's checkpoint engine, for files that another number of processes has written."""

    def __init__(self, engine: Any, files: Sequence[Path], rank: int, processes: int) -> None:
        self._own, self._engine, self._files = engine.checkpoint_engine, engine, files
        self._rank, self._processes = rank, processes
        self._shapes: list[Shapes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def load(self, path: str, map_location: Any = None) -> dict[str, Any]:
        if not path.endswith(STATES):
            state: dict[str, Any] = self._own.load(path, map_location)
            self._shapes = state["param_shapes"]
            return {**state, "dp_world_size": self._processes}
        optimizer, written = self._engine.optimizer, Partitions(self._files)
        if self._engine.zero_optimization_stage() == 3:
            now = self._engine._get_zero_param_shapes()
            groups = [optimizer.sub_group_to_group_id[flat] for flat in range(len(now))]
            return {OPTIMIZER: written.of_parameters(self._shapes, now, groups, self._rank, self._processes)}
        own = getattr(optimizer, PARTITIONS, None) or optimizer.fp32_groups_flat_partition  # of bfloat16 with ZeRO 1
        sizes = [partition.numel() for partition in own]
        return {OPTIMIZER: written.of_groups(self._shapes, sizes, self._rank)}


def partition_files(folder: Path) -> list[Path]:
    """By rank; none with ZeRO 0."""
    return sorted(folder.glob(f"*zero_pp_rank_*{STATES}"), key=rank_of)


def check_whole(folder: Path, files: list[Path]) -> None:
    """Raises ConfigurationError if the model itself was spread, too."""
    if others := [file.name for file in files if "_mp_rank_00_" not in file.name]:
        raise ConfigurationError(
            f"{folder.parent.name} holds partitions of tensor parallelism ({others[0]}), which can't be read by "
            "another number of processes; use as many nodes and processes as before"
        )


def rank_of(file: Path) -> int:
    return int(file.name.partition("zero_pp_rank_")[2].partition("_")[0])


@contextmanager
def reading(engine: Any, folder: Path, rank: int, processes: int) -> Iterator[None]:
    """DeepSpeed loads what so many processes have, whoever wrote it. ``folder``: with its files.

    Raises ConfigurationError.
    """
    files = partition_files(folder)
    if not files or len(files) == processes:
        yield
        return
    check_whole(folder, files)
    model = min(folder.glob(f"*mp_rank_00{MODEL}"))  # the first rank's; with ZeRO 3 all are alike, and hold no weights
    own, engine.checkpoint_engine = engine.checkpoint_engine, OtherPartitions(engine, files, rank, processes)
    engine._get_all_ckpt_names = lambda *_: [str(model)]
    try:
        yield
    finally:
        engine.checkpoint_engine = own
        del engine._get_all_ckpt_names
