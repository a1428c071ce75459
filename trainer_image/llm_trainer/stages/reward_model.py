"""A reward model: TRL's RewardTrainer on pairs of a better and a worse answer."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional
from trl import RewardConfig, RewardTrainer

from llm_trainer.config import RewardModel, StageConfig
from llm_trainer.models.build import build_reward_model
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fine_tuning import (
    TokenisedRows,
    find_tokenizer,
    for_trl,
    peft_config,
    rows_of,
    run_stage,
)
from llm_trainer.stages.grouped_batches import Places
from llm_trainer.stages.packed_batches import lengths_of
from llm_trainer.stages.trl_stage import StageTrainer, training_arguments


class Trainer(TokenisedRows, StageTrainer, RewardTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage."""

    def row_lengths(self) -> Places:
        return np.maximum(*(lengths_of(self.train_dataset, f"{column}_ids") for column in ("chosen", "rejected")))

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """`accuracy`: share of held-out pairs whose better answer scores higher; `margin` between them; `loss`."""
        if self.eval_dataset is None:
            return {}
        pairs = right = margin = loss = 0.0
        for batch, counts in self.held_out_batches():
            wanted = batch.pop("margin", 0.0)
            rewards = self.forward(**batch).logits.squeeze(-1).double()
            if counts:
                difference = torch.sub(*rewards.chunk(2))
                pairs += len(difference)
                right += float((difference > 0).sum())
                margin += float(difference.sum())
                loss -= float(functional.logsigmoid(difference - wanted).sum())
        pairs, right, margin, loss = self.run.group.sum(pairs, right, margin, loss)
        return {"loss": loss / pairs, "accuracy": right / pairs, "margin": margin / pairs}


def run(config: StageConfig, board: Board) -> str:
    return run_stage(config, board, config.reward_model, make_trainer)


def make_trainer(run: Run, settings: RewardModel) -> Trainer:
    config = run.config
    tokenizer = find_tokenizer(config)
    model = for_trl(config, settings, tokenizer, build_reward_model(config, settings.seed))
    rows = rows_of(config, settings, tokenizer, run.board, run.group.rank)
    arguments = RewardConfig(
        **training_arguments(run, settings),
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        center_rewards_coefficient=settings.center_rewards_coefficient,
    )
    adapter = peft_config(model, settings, "SEQ_CLS", head="score")
    return Trainer(run, settings, model=model, args=arguments, processing_class=tokenizer, peft_config=adapter, **rows)
