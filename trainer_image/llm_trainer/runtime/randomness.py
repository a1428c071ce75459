"""Random numbers that differ between processes: what dropout draws, once all have built the same model."""

from __future__ import annotations

import torch


def draw_apart(seed: int, rank: int) -> None:
    """From here on each rank has numbers of its own, which its checkpoint keeps.

    Built from one seed, all ranks would leave out the same units for their different rows. Rank 0 goes on as it is.
    """
    if rank:
        torch.manual_seed((seed + rank * 0x9E3779B97F4A7C15) % 2**63)  # far from the seeds of other stages
