"""Supervised fine-tuning: TRL's SFTTrainer on conversations or prompts with completions."""

from __future__ import annotations

import torch
from trl import SFTConfig, SFTTrainer

from llm_trainer.config import Sft, StageConfig
from llm_trainer.data.tokenizer_checks import check_generation_marks
from llm_trainer.models.build import build
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fine_tuning import (
    check_chat_template,
    check_model,
    find_tokenizer,
    is_conversational,
    peft_config,
    report_dropped_rows,
    rows_of,
    run_stage,
)
from llm_trainer.stages.trl_stage import StageTrainer, training_arguments


class Trainer(StageTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage; its held-out figure is exact whatever the batch size and the number of processes."""

    base_figures = ("loss",)

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Nats per token over all held-out answers."""
        if self.eval_dataset is None:
            return {}
        total = tokens = 0.0
        for batch, counts in self.held_out_batches():
            outputs = self.forward(**batch, fused_lm_head=True)
            if counts:
                total -= float(outputs.log_probs.double().sum())
                tokens += float(outputs.label_mask.sum())
        total, tokens = self.run.group.sum(total, tokens)
        return {"loss": total / tokens}

    def summary(self) -> str:
        evaluation = self.run.board.progress.evaluation
        parts = [f"{self.state.global_step} steps on {len(self.train_dataset):,} rows"]
        if "loss" in evaluation:
            base = f" from {evaluation['baseLoss']:.3f}" if "baseLoss" in evaluation else ""
            parts.append(f"loss on {len(self.eval_dataset):,} held-out rows{base} to {evaluation['loss']:.3f}")
        return ", ".join(parts)


def run(config: StageConfig, board: Board) -> str:
    return run_stage(config, board, config.sft, make_trainer)


def make_trainer(run: Run, settings: Sft) -> Trainer:
    config = run.config
    tokenizer = find_tokenizer(config)
    model = build(config, tokenizer, settings.seed)
    check_model(config, settings, tokenizer, model)
    rows = rows_of(config, settings)
    check_chat_template(tokenizer, rows["train_dataset"])
    assistant_only_loss = settings.assistant_only_loss and is_conversational(rows["train_dataset"])
    if assistant_only_loss:
        check_generation_marks(tokenizer)
    arguments = SFTConfig(
        **training_arguments(run, settings),
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        router_aux_loss_coef=settings.router_aux_loss_coef,
        assistant_only_loss=assistant_only_loss,
        packing=False,
    )
    trainer = Trainer(
        run,
        settings,
        model=model,
        args=arguments,
        processing_class=tokenizer,
        peft_config=peft_config(model, settings),
        **rows,
    )
    report_dropped_rows(trainer, rows, "has no token of its answer within sft.maxLength")
    return trainer
