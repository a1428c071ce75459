"""Direct preference optimisation: TRL's DPOTrainer, with the reference's log-probabilities computed once."""

from __future__ import annotations

import numpy as np
import torch
from trl import DPOConfig, DPOTrainer

from llm_trainer.config import Dpo, StageConfig
from llm_trainer.models.build import build
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fine_tuning import (
    TokenisedRows,
    balance_coefficient,
    find_tokenizer,
    for_trl,
    peft_config,
    rows_of,
    run_stage,
)
from llm_trainer.stages.grouped_batches import Places
from llm_trainer.stages.packed_batches import lengths_of
from llm_trainer.stages.reference import ReferenceTrainer
from llm_trainer.stages.trl_stage import training_arguments

OF_A_PAIR = {
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "sppo_hard", "apo_zero", "apo_down", "discopop",
    "sigmoid_norm",
}  # fmt: skip  # losses that see one pair at a time


class Trainer(TokenisedRows, ReferenceTrainer, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage."""

    settings: Dpo
    reference_columns = ("ref_chosen_logps", "ref_rejected_logps")

    def row_lengths(self) -> Places | None:
        """Some losses compare the pairs of a micro-batch, or are means over its tokens."""
        if not set(self.settings.loss_type) <= OF_A_PAIR:
            return None
        prompts, *answers = (lengths_of(self.train_dataset, f"{name}_ids") for name in ("prompt", "chosen", "rejected"))
        lengths: Places = np.minimum(prompts + np.maximum(*answers), self.settings.max_length)
        return lengths

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Over the held-out pairs: share whose better answer has the higher implicit reward, the mean difference of
        the two rewards, and the log-probabilities of both answers.
        """
        if self.eval_dataset is None:
            return {}
        sums = torch.zeros(5, dtype=torch.float64)
        for batch, counts in self.held_out_batches():
            reference = torch.stack([batch.pop(name) for name in self.reference_columns]).double()
            mask = batch.pop("completion_mask")
            labels = batch["input_ids"].masked_fill(mask == 0, -100)
            outputs = self.forward(**batch, labels=labels, fused_lm_head=True)
            if counts:
                chosen, rejected = answers = outputs.log_probs.double().sum(dim=1).view(2, -1)
                margin = self.beta * torch.sub(*(answers - reference))
                parts = (torch.ones_like(margin), margin > 0, margin, chosen, rejected)
                sums += torch.stack([part.sum() for part in parts]).cpu()
        pairs, right, margin, chosen, rejected = self.run.group.sum(*sums.tolist())
        return {
            "accuracy": right / pairs,
            "margin": margin / pairs,
            "logProbability/chosen": chosen / pairs,
            "logProbability/rejected": rejected / pairs,
        }


def run(config: StageConfig, board: Board) -> str:
    return run_stage(config, board, config.dpo, make_trainer)


def make_trainer(run: Run, settings: Dpo) -> Trainer:
    config = run.config
    tokenizer = find_tokenizer(config)
    model = for_trl(config, settings, tokenizer, build(config, tokenizer, settings.seed))
    rows = rows_of(config, settings, tokenizer, run.board, run.group.rank)
    arguments = DPOConfig(
        **training_arguments(run, settings),
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        router_aux_loss_coef=balance_coefficient(model, settings.router_aux_loss_coef),
        beta=settings.beta,
        loss_type=list(settings.loss_type),
        loss_weights=settings.loss_weights,
        label_smoothing=settings.label_smoothing,
        precompute_ref_log_probs=True,
    )
    return Trainer(
        run,
        settings,
        model=model,
        args=arguments,
        processing_class=tokenizer,
        peft_config=peft_config(model, settings),
        **rows,
    )
