"""Weights that several processes share otherwise than ZeRO does: of experts, or of a layer's matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed


@dataclass(frozen=True, eq=False)
class Joined:
    """One weight as a result has it, which is whole nowhere before it is written.

    ``own``: this process's parts of what transformers stores as one, side by side along ``beside``; of each the
    processes of ``group`` have theirs along ``dimension``, in the order of their ranks.
    """

    own: tuple[torch.Tensor, ...]
    group: Any
    dimension: int = 0
    beside: int = 0

    @property
    def shape(self) -> torch.Size:
        shape = list(self.own[0].shape)
        shape[self.dimension] *= distributed.get_world_size(self.group)
        shape[self.beside] *= len(self.own)
        return torch.Size(shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.own[0].dtype

    def numel(self) -> int:
        return self.shape.numel()

    def element_size(self) -> int:
        return self.own[0].element_size()

    def gathered(self) -> torch.Tensor:
        """On every process of the group, on its device; a collective."""
        return torch.cat([self._gathered(part) for part in self.own], dim=self.beside)

    def _gathered(self, own: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(own) for _ in range(distributed.get_world_size(self.group))]
        distributed.all_gather(parts, own.detach().contiguous(), group=self.group)
        return torch.cat(parts, dim=self.dimension)
