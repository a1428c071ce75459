"""Group relative policy optimisation: TRL's GRPOTrainer on prompts, with reward models and functions."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import datasets
import torch
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from llm_trainer.config import Grpo, StageConfig
from llm_trainer.data.rendering import Prompt, encode_prompt, stop_tokens
from llm_trainer.models.build import build
from llm_trainer.rl.rewards import FlatRewards, load_rewards
from llm_trainer.rl.rollout import own_sampling
from llm_trainer.runtime.exchange import pickles_allowed
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fine_tuning import balance_coefficient, find_tokenizer, for_trl, peft_config, run_stage
from llm_trainer.stages.prompts import prompt_rows
from llm_trainer.stages.trl_stage import StageTrainer, training_arguments


class Trainer(StageTrainer, GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.flat = FlatRewards()
        super().__init__(*arguments, **named)

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Mean reward of one sampled answer to each of the held-out prompts."""
        if self.eval_dataset is None:
            return {}
        rows, group = self.eval_dataset, self.run.group
        total = count = 0.0
        size = self.args.per_device_eval_batch_size
        mine = range(group.rank, len(rows), group.world_size)
        self.model.eval()
        for begin in range(0, -(-len(rows) // group.world_size), size):
            picked = list(mine[begin : begin + size])
            examples = [rows[index] for index in (picked + [0] * size)[:size]]
            prompts = [example["prompt"] for example in examples]
            _, ids, _, completions, *_ = self._generate(prompts)
            rewards = self._calculate_rewards(examples, prompts, completions, ids)
            weighted = (rewards * self.reward_weights.to(rewards.device)).sum(dim=1).double()
            own = weighted[group.rank * size :][: len(picked)]
            total += float(own.sum())
            count += len(picked)
            self.run.watchdog.beat()
        self.model.train()
        self._metrics["eval"].clear()
        total, count = group.sum(total, count)
        return {"reward": total / count}

    def _tokenize_prompts(self, prompts: list[Prompt]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """As data preparation has read them: what a prompt spells is text."""
        return [encode_prompt(self.processing_class, prompt) for prompt in prompts], None, {}

    def _generate(self, prompts: list[Prompt]) -> Any:
        with own_sampling(self.model), self.step_part("generate"):
            return super()._generate(prompts)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """Answers are written, and looked back at, in the precision in which they are learned from."""
        with self.compute_loss_context_manager():
            return super()._generate_and_score_completions(inputs)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        """(answers of all ranks, rewards)."""
        with self.step_part("score"):
            rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            self.flat.see(rewards)
        self.run.watchdog.beat()
        return rewards

    def step_part(self, name: str) -> AbstractContextManager[None]:
        """Of a step; answers to held-out prompts are of none."""
        return self.run.board.parts.of(name) if self.model.training else nullcontext()


def run(config: StageConfig, board: Board) -> str:
    return run_stage(config, board, config.grpo, make_trainer)


def make_trainer(run: Run, settings: Grpo) -> Trainer:
    config = run.config
    tokenizer = find_tokenizer(config)
    model = for_trl(config, settings, tokenizer, build(config, tokenizer, settings.seed))
    rows = prompt_rows(config, settings, tokenizer, run.board, run.group.rank)
    model.generation_config.eos_token_id = stop_tokens(tokenizer, model.generation_config.eos_token_id)
    rewards, tokenizers = load_rewards(config, settings)
    arguments = GRPOConfig(
        **training_arguments(run, settings),
        num_train_epochs=settings.epochs,
        num_generations=settings.num_generations,
        num_generations_eval=1,
        max_completion_length=settings.max_completion_length,
        temperature=settings.temperature,
        reward_weights=[reward.weight for reward in settings.rewards],
        beta=settings.beta,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
        loss_type=settings.loss_type,
        scale_rewards=settings.scale_rewards,
        mask_truncated_completions=settings.mask_truncated_completions,
        router_aux_loss_coef=balance_coefficient(model, None),
        **vllm_arguments(settings),
    )

    def reference(*_: Any, **__: Any) -> PreTrainedModel:
        """What the stage starts from; TRL would read the folder that transformers has read last, whole."""
        return build(config, tokenizer, settings.seed)

    with (
        pickles_allowed(needed=settings.vllm is not None and settings.vllm.tensor_parallel_size > 1),
        mock.patch.object(grpo_trainer, "create_model_from_path", reference),
    ):
        trainer = Trainer(
            run,
            settings,
            model=model,
            args=arguments,
            processing_class=tokenizer,
            reward_funcs=rewards,
            reward_processing_classes=tokenizers,
            peft_config=peft_config(model, settings),
            # TRL wants a Dataset, whose Arrow would make one type of a column's values: the rows come after
            train_dataset=datasets.Dataset.from_dict({"prompt": [rows["train_dataset"][0]["prompt"]]}),
        )
    trainer.train_dataset, trainer.eval_dataset = rows["train_dataset"], rows.get("eval_dataset")
    return trainer


def vllm_arguments(settings: Grpo) -> dict[str, Any]:
    """TRL's, with the importance correction that is its default; none if transformers writes the answers."""
    if settings.vllm is None:
        return {}
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": settings.vllm.gpu_memory_utilization,
        "vllm_tensor_parallel_size": settings.vllm.tensor_parallel_size,
        "vllm_enable_sleep_mode": settings.vllm.sleep,
        "vllm_max_model_length": settings.length,
        "vllm_importance_sampling_correction": True,
    }
