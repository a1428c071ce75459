"""Kahneman-Tversky optimisation: TRL's KTOTrainer on answers that are marked as good or bad."""

from __future__ import annotations

import torch
from trl import KTOConfig, KTOTrainer

from llm_trainer.config import Kto, StageConfig
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
from llm_trainer.stages.reference import ReferenceTrainer
from llm_trainer.stages.trl_stage import training_arguments


class Trainer(TokenisedRows, ReferenceTrainer, KTOTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage."""

    reference_columns = ("ref_logps", "ref_KL_logps")

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Mean implicit reward of the good and of the bad held-out answers, and the margin between the two."""
        if self.eval_dataset is None:
            return {}
        sums = torch.zeros(4, dtype=torch.float64)
        for batch, counts in self.held_out_batches():
            labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            outputs = self.forward(**inputs, labels=labels, fused_lm_head=True)
            if counts:
                good = torch.as_tensor(batch["label"], dtype=torch.float64, device=labels.device)
                reference = torch.as_tensor(batch["ref_logps"], dtype=torch.float64, device=labels.device)
                rewards = self.beta * (outputs.log_probs.double().sum(dim=1) - reference)
                parts = (good, good * rewards, 1 - good, (1 - good) * rewards)
                sums += torch.stack([part.sum() for part in parts]).cpu()
        goods, chosen, bads, rejected = self.run.group.sum(*sums.tolist())
        figures = {"reward/good": chosen / goods} if goods else {}
        figures |= {"reward/bad": rejected / bads} if bads else {}
        return {**figures, "margin": chosen / goods - rejected / bads} if goods and bads else figures


def run(config: StageConfig, board: Board) -> str:
    return run_stage(config, board, config.kto, make_trainer)


def make_trainer(run: Run, settings: Kto) -> Trainer:
    config = run.config
    tokenizer = find_tokenizer(config)
    model = for_trl(config, settings, tokenizer, build(config, tokenizer, settings.seed))
    rows = rows_of(config, settings, tokenizer, run.board, run.group.rank)
    arguments = KTOConfig(
        **training_arguments(run, settings),
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        router_aux_loss_coef=balance_coefficient(model, settings.router_aux_loss_coef),
        beta=settings.beta,
        desirable_weight=settings.desirable_weight,
        undesirable_weight=settings.undesirable_weight,
        precompute_ref_log_probs=True,
    )
    adapter = peft_config(model, settings)
    return Trainer(run, settings, model=model, args=arguments, processing_class=tokenizer, peft_config=adapter, **rows)
