"""What a GPU computes at most, by the name that torch tells, and the share of it that a training takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llm_trainer.runtime.peaks import device_name, peak_flops
from llm_trainer.runtime.speed import Speed
from llm_trainer.stages.loop import Loop


@pytest.mark.parametrize(
    ("name", "bfloat16", "float32"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA H200", 989, 67),
        ("NVIDIA GH200 480GB", 989, 67),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("NVIDIA A100-PCIE-40GB", 312, 19.5),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA L40S", 362, 91.6),
        ("NVIDIA B200", 2250, 75),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA GeForce RTX 4090 D", 147, 73.5),
        ("AMD Instinct MI300X", 1307, 163.4),
    ],
)
def test_a_known_gpu(name: str, bfloat16: float, float32: float) -> None:
    assert peak_flops(name, bfloat16=True) == 1e12 * bfloat16
    assert peak_flops(name, bfloat16=False) == 1e12 * float32


@pytest.mark.parametrize("name", ["cpu", "", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "NVIDIA L400", "Tesla T4", "XH100"])
def test_what_is_not_known_has_none(name: str) -> None:
    assert peak_flops(name, bfloat16=True) is None


def test_a_cpu_has_a_name() -> None:
    assert device_name(torch.device("cpu")) == "cpu"


def test_the_share_is_of_all_devices() -> None:
    """6 million operations a token, 1 million tokens a second, on four devices of 10^13."""
    speed = Speed()
    speed.see(2_000_000, 2.0)
    loop: Any = SimpleNamespace(
        peak_flops=1e13, flops_per_token=6e6, speed=speed, run=SimpleNamespace(group=SimpleNamespace(world_size=4))
    )
    share: Any = Loop.mfu
    assert share.fget(loop) == pytest.approx(0.15)
    loop.flops_per_token = 0.0
    assert share.fget(loop) is None
