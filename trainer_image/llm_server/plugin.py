"""What vLLM calls by its entry points: `register` before it makes a model, `platform` before it does anything.

It calls `register` in each of its processes, perhaps more than once.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def register() -> None:
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        replace_mixer()


def platform() -> str | None:
    """The class of the platform; None where vLLM would not take its own for CPU either."""
    from vllm.platforms import cpu_platform_plugin

    return "llm_server.platform.ForkingCpu" if cpu_platform_plugin() == "vllm.platforms.cpu.CpuPlatform" else None


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
