"""What a GPU computes at most, for the share of it that a training uses (MFU; Chowdhery et al. 2022, appendix B).

Dense products with sums in float32, by the vendors' data sheets, which give figures with sparsity of twice as much.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Peak(NamedTuple):
    """10^12 floating-point operations a second: of bfloat16 on tensor cores, of float32 without them."""

    bfloat16: float
    float32: float


# By a part of the name that torch tells; the first that fits, so the narrower ones come first.
PEAKS = {
    "GB200": Peak(2500, 80),
    "B200": Peak(2250, 75),
    "GH200": Peak(989, 67),
    "H200 NVL": Peak(835, 60),
    "H200": Peak(989, 67),
    "H100 PCIe": Peak(756, 51),
    "H100 NVL": Peak(835, 60),
    "H100": Peak(989, 67),
    "H800 PCIe": Peak(756, 51),
    "H800": Peak(989, 67),
    "A100": Peak(312, 19.5),
    "A800": Peak(312, 19.5),
    "A40": Peak(149.7, 37.4),
    "A30": Peak(165, 10.3),
    "L40S": Peak(362, 91.6),
    "L40": Peak(181, 90.5),
    "L4": Peak(121, 30.3),
    "RTX 4090 D": Peak(147, 73.5),
    "RTX 4090": Peak(165.2, 82.6),
    "RTX 3090 Ti": Peak(80, 40),
    "RTX 3090": Peak(71, 35.6),
    "RTX 5090": Peak(209.5, 104.8),
    "MI355X": Peak(2500, 157.3),
    "MI350X": Peak(2300, 144.2),
    "MI325X": Peak(1307, 163.4),
    "MI300X": Peak(1307, 163.4),
}


def peak_flops(device: str, *, bfloat16: bool) -> float | None:
    """A second, of one GPU by its name; None of one that is not known, or that is a part of one."""
    if " MIG " in f"{device} ":
        return None
    words = f" {device} "
    found = next((peak for name, peak in PEAKS.items() if f" {name} " in words or f" {name}-" in words), None)
    return None if found is None else 1e12 * (found.bfloat16 if bfloat16 else found.float32)


def device_name(device: torch.device) -> str:
    """As its vendor names it; cpu of a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
