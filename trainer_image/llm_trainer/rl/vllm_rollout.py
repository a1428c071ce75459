"""Answers that a vLLM engine writes in the training's own processes, on its GPUs; the engine sleeps between rollouts.

TRL's VLLMGeneration drives it: every weight is gathered by itself with ZeRO-3, an adapter is merged while it is pushed,
and the cache of prefixes is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from types import SimpleNamespace

import torch
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import OnlineRl
from llm_trainer.models.engine import Engine
from llm_trainer.rl.rollout import Answers, join, rollout_ends, until
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.exchange import pickles_allowed
from llm_trainer.runtime.process_group import ProcessGroup


class VllmRollouts:
    """Every method is called by all ranks together, each with as many prompts as the others."""

    def __init__(self, policy: Engine, settings: OnlineRl, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ConfigurationError without settings for vLLM or without a GPU."""
        vllm, self.group = settings.vllm, policy.group
        if vllm is None or self.group.device.type != "cuda":
            raise ConfigurationError("vllm: shares the training's GPUs, and there are none; remove vllm from the stage")
        from trl.generation.vllm_generation import VLLMGeneration  # it imports vLLM, which a CPU's stage has no use for

        self.ends = rollout_ends(policy, tokenizer)
        self.padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.ends[0]
        with pickles_allowed(needed=vllm.tensor_parallel_size > 1):
            self._engine = VLLMGeneration(
                policy.model,
                accelerator_of(self.group, settings.zero_stage),
                tokenizer,
                mode="colocate",
                tensor_parallel_size=vllm.tensor_parallel_size,
                gpu_memory_utilization=vllm.gpu_memory_utilization,
                max_model_length=settings.length,
                enable_sleep_mode=vllm.sleep,
                temperature=settings.temperature,
                max_completion_length=settings.max_completion_length,
                logprobs=0,  # of the written token alone
                generation_kwargs={"stop_token_ids": self.ends},
            )

    @torch.no_grad()
    def generate(self, prompts: list[list[int]]) -> Answers:
        """One sampled answer to each prompt, by the policy as it is now."""
        self._engine.sync_weights()
        _, written, told, _ = self._engine.generate(prompts, None, num_generations=1)
        return answers_of(prompts, written, told, self.ends, self.padding, self.group.device)


def answers_of(
    prompts: list[list[int]],
    written: list[list[int]],
    told: list[list[list[float]]],
    ends: Collection[int],
    padding: int,
    device: torch.device,
) -> Answers:
    """``told``: log-probabilities by answer, token and rank; the written token's is the first rank."""
    completions = [until(ends, tokens) for tokens in written]
    answers = join(prompts, completions, ends, padding, device)
    sampled = torch.zeros(answers.answered.shape, device=device)
    kept = [ranks[0] for tokens, row in zip(completions, told, strict=True) for ranks in row[: len(tokens)]]
    sampled[answers.answered] = torch.tensor(kept, device=device)
    return replace(answers, sampled=sampled)


def accelerator_of(group: ProcessGroup, zero_stage: int) -> SimpleNamespace:
    """What VLLMGeneration reads of an Accelerator."""
    return SimpleNamespace(
        device=group.device,
        is_main_process=group.is_first,
        num_processes=group.world_size,
        process_index=group.rank,
        local_process_index=int(os.environ.get("LOCAL_RANK", "0")),
        wait_for_everyone=torch.distributed.barrier,
        state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=zero_stage), fsdp_plugin=None),
    )
