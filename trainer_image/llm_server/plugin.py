"""Layers that take the place of vLLM's own, by its registry of out-of-tree layers. Entry point `vllm.general_plugins`.

vLLM calls `register` in each of its processes before it makes a model, and may do so more than once.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def register() -> None:
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        replace_mixer()


def replace_mixer() -> None:
    from vllm.model_executor.layers.mamba.mamba_mixer2 import MambaMixer2

    @MambaMixer2.register_oot
    class Mixer(MambaMixer2):  # type: ignore[misc]  # of a module that mypy skips
        """On a CPU with avx512_bf16 vLLM packs the weights of every convolution, for which it has a kernel in bfloat16
        only: a model in float32 fails to load. The mixer's own kernels take the weights as they are.
        """

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.conv1d._cpu_skip_gemm_dispatch = True
