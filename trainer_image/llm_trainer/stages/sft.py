"""Supervised fine-tuning: TRL's SFTTrainer on conversations or prompts with completions."""

from __future__ import annotations

from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from llm_trainer.config import Sft, StageConfig
from llm_trainer.models.build import build
from llm_trainer.models.loss_function import LossFunction, loss_function
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fine_tuning import (
    TokenisedRows,
    check_model,
    find_tokenizer,
    peft_config,
    rows_of,
    run_stage,
)
from llm_trainer.stages.trl_stage import StageTrainer, training_arguments


class Trainer(TokenisedRows, StageTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage; its held-out figure is exact whatever the batch size and the number of processes."""

    base_figures = ("loss",)
    loss: LossFunction | None = None  # of the user's

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None  # noqa: FBT001, FBT002 -- as TRL calls it
    ) -> Any:  # fmt: skip
        """By the user's function if there is one: TRL would pass a second time and forget the experts' loss."""
        if self.loss is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        routers = {"output_router_logits": True} if self.aux_loss_enabled else {}
        given = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**given, use_cache=False, **routers)
        # Each process's loss is its share of the step's; the gradients are averaged over the processes.
        loss = self.loss(outputs, inputs["labels"], num_items_in_batch) * self.accelerator.num_processes
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

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
    rows = rows_of(config, settings, tokenizer, run.board)
    arguments = SFTConfig(
        **training_arguments(run, settings),
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        router_aux_loss_coef=settings.router_aux_loss_coef,
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
    if settings.loss_function:
        trainer.loss = loss_function(settings.loss_function, "sft.lossFunction")
    return trainer
