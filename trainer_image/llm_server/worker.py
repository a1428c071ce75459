"""vLLM's worker on CPU, which takes the page cache for free memory, as it is."""

from __future__ import annotations

from vllm.logger import init_logger
from vllm.v1.worker.cpu_worker import CPUWorker

from llm_server.memory import available_memory

logger = init_logger("vllm.llm_server")


class Worker(CPUWorker):  # type: ignore[misc]  # of a module that mypy skips
    def determine_available_memory(self) -> int:
        """VLLM counts what is cached of the weights' files against the container's limit, so that a cache which fits is
        refused. What was asked for is checked against what can be had.
        """
        asked: int | None = self.cache_config.kv_cache_memory_bytes
        free = available_memory()
        if asked is None or free is None or asked > free:
            found: int = super().determine_available_memory()
            return found
        if self._should_warm_up_model():
            self.model_runner.warming_up_model()
        logger.info("%.2f GiB for the KV cache, of %.2f GiB that the container has left", asked / 2**30, free / 2**30)
        return asked
