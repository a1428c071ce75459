"""Supervised fine-tuning: TRL's SFTTrainer on conversations or prompts with completions."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad
from trl import SFTConfig, SFTTrainer

from llm_trainer.config import Sft, StageConfig
from llm_trainer.models.build import build
from llm_trainer.models.language_loss import IGNORED
from llm_trainer.models.loss_function import LossFunction, loss_function
from llm_trainer.runtime.errors import ConfigurationError
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
from llm_trainer.stages.trl_stage import StageTrainer, training_arguments


class Trainer(TokenisedRows, StageTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage; its held-out figure is exact whatever the batch size and the number of processes."""

    base_figures = ("loss",)
    loss: LossFunction | None = None  # of the user's

    def __init__(self, *given: Any, **arguments: Any) -> None:
        super().__init__(*given, **arguments)
        self._told = torch.zeros(3, dtype=torch.float64)  # of the step: targets, and `Told` of them

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None  # noqa: FBT001, FBT002 -- as TRL calls it
    ) -> Any:  # fmt: skip
        """By the user's function if there is one: TRL would pass a second time and forget the experts' loss.

        By the engine where it can: TRL's makes all logits twice, also of a prompt, and gradients of frozen weights.
        """
        if self.engine is not None:
            return self._nats_of(inputs) / torch.as_tensor(num_items_in_batch).clamp(min=1) * self.engine.learners
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

    def _nats_of(self, inputs: dict[str, Any]) -> torch.Tensor:
        assert self.engine  # noqa: S101 -- its caller has looked
        rows = whole_rows(inputs, self.settings.sequence_parallel)
        if self.settings.processes_per_row > 1:
            return self.engine.nats(*rows)[0]
        nats, told = self.engine.told_nats(*rows)
        targets = (rows[2] != IGNORED).sum()
        self._told = self._told.to(nats.device) + torch.stack([targets, told.entropy, told.right]).detach()
        return nats

    def step_figures(self) -> dict[str, float]:
        """Under TRL's names also where the engine makes the loss."""
        figures = super().step_figures()
        if self.engine is None or self.settings.processes_per_row > 1:
            return figures
        targets, entropy, right = self.run.group.sum(*self._told.tolist())
        self._told = torch.zeros_like(self._told)
        own = {"entropy": entropy / targets, "mean_token_accuracy": right / targets} if targets else {}
        return {**figures, **own}

    def row_lengths(self) -> Places:
        return lengths_of(self.train_dataset, "input_ids")

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Nats per token over all held-out answers."""
        if self.eval_dataset is None:
            return {}
        total = tokens = 0.0
        for batch, counts in self.held_out_batches():
            nats, targets = self._nats(batch)
            if counts:
                total += nats
                tokens += targets
        total, tokens = self.run.group.sum(total, tokens)
        return {"loss": total / tokens}

    def _nats(self, batch: dict[str, Any]) -> tuple[float, float]:
        """A rank's part of the sum over a batch's targets, and of their number."""
        if self.engine is None:
            outputs = self.forward(**batch, fused_lm_head=True)
            return -float(outputs.log_probs.double().sum()), float(outputs.label_mask.sum())
        size = self.settings.sequence_parallel
        rows = whole_rows(batch, size)
        told = self.settings.processes_per_row == 1
        nats = self.engine.told_nats(*rows)[0] if told else self.engine.nats(*rows)[0]
        return float(nats), float((rows[2] != IGNORED).sum()) / size

    def summary(self) -> str:
        evaluation = self.run.board.progress.evaluation
        parts = [f"{self.state.global_step} steps on {len(self.train_dataset):,} rows"]
        if "loss" in evaluation:
            base = f" from {evaluation['baseLoss']:.3f}" if "baseLoss" in evaluation else ""
            parts.append(f"loss on {len(self.eval_dataset):,} held-out rows{base} to {evaluation['loss']:.3f}")
        return ", ".join(parts)


def whole_rows(batch: dict[str, Any], parts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, positions and targets (rows, length) of a batch as TRL's collator gives it, in a multiple of `parts`.

    What fills a row up is a document of its own behind all others, in which nothing is a target.
    """
    tokens, labels = batch["input_ids"], batch["labels"]
    rows, length = tokens.shape
    missing = -length % parts
    positions = batch.get("position_ids")
    if positions is None:
        positions = torch.arange(length, device=tokens.device).expand(rows, -1)
    behind = torch.arange(missing, device=tokens.device).expand(rows, -1)
    targets = pad(labels[:, 1:], (0, missing + 1), value=IGNORED)
    return pad(tokens, (0, missing)), torch.cat([positions, behind], dim=1), targets


def run(config: StageConfig, board: Board) -> str:
    return run_stage(config, board, config.sft, make_trainer)


def check_shared_work(settings: Sft, trainer: Trainer) -> None:
    """Raises ConfigurationError for a mixture whose rows are shared: TRL's balance loss is of whole rows."""
    if settings.processes_per_row > 1 and trainer.aux_loss_enabled and trainer.router_aux_loss_coef:
        raise ConfigurationError(
            f"sft.routerAuxLossCoef: the experts' load-balance loss, {trainer.router_aux_loss_coef} of it, does not go "
            f"with sequenceParallel {settings.sequence_parallel} in an sft stage; set it to 0"
        )


def make_trainer(run: Run, settings: Sft) -> Trainer:
    config = run.config
    tokenizer = find_tokenizer(config)
    model = for_trl(config, settings, tokenizer, build(config, tokenizer, settings.seed))
    rows = rows_of(config, settings, tokenizer, run.board, run.group.rank)
    arguments = SFTConfig(
        **training_arguments(run, settings),
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        router_aux_loss_coef=balance_coefficient(model, settings.router_aux_loss_coef),
        packing=False,  # by ours: its rows would be other steps, with other losses
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
    check_shared_work(settings, trainer)
    trainer.packs = settings.packing
    trainer.owns_loss = not settings.loss_function and not trainer.aux_loss_enabled
    if settings.loss_function:
        trainer.loss = loss_function(settings.loss_function, "sft.lossFunction")
    return trainer
