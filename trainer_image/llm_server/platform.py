"""vLLM's CPU platform, whose engine and workers are forked from the server, which has imported everything; the workers
are ours.
"""

from __future__ import annotations

import os
from typing import Any

from vllm.platforms.cpu import CpuPlatform


class ForkingCpu(CpuPlatform):  # type: ignore[misc]  # of a module that mypy skips
    """On CPU vLLM starts them anew, so that each reads an environment of its own for OpenMP; on GPUs it forks them.

    Where threads are not bound the environment is the same for all, and two thirds of a start are spared.
    """

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        super().check_and_update_config(vllm_config)
        if vllm_config.parallel_config.worker_cls == "vllm.v1.worker.cpu_worker.CPUWorker":
            vllm_config.parallel_config.worker_cls = "llm_server.worker.Worker"
        if os.environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind":
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
