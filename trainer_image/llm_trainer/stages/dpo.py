"""Direct preference optimisation: TRL's DPOTrainer, with the reference's log-probabilities computed once."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import datasets
import numpy as np
import torch
from trl import DPOConfig, DPOTrainer
from trl.models.utils import prepare_deepspeed

from llm_trainer.config import Dpo, StageConfig
from llm_trainer.models.build import build
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fine_tuning import (
    check_chat_template,
    check_model,
    find_tokenizer,
    peft_config,
    report_dropped_rows,
    rows_of,
    run_stage,
)
from llm_trainer.stages.trl_stage import StageTrainer, training_arguments

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")


class Trainer(StageTrainer, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage."""

    _precompute_engine: Any

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Over the held-out pairs: share whose better answer has the higher implicit reward, the mean difference of
        the two rewards, and the log-probabilities of both answers.
        """
        if self.eval_dataset is None:
            return {}
        sums = torch.zeros(5, dtype=torch.float64)
        for batch, counts in self.held_out_batches(*IDS, *REFERENCE):
            reference = torch.stack([batch.pop(name) for name in REFERENCE]).double()
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

    def _precompute_ref_logps(self, dataset: datasets.Dataset, name: str, batch_size: int) -> datasets.Dataset:
        """Replaces TRL's, which needs a cache that all hosts share: each rank computes its rows, then all have all.

        Kept in the stage's folder, so that the next attempt reads them.
        """
        file = self.run.stage_folder / f"reference-{name}.npz"
        key = self._reference_key(dataset)
        found = np.load(file) if self.run.group.is_first and file.is_file() else {}
        known = {column: found[column] for column in REFERENCE} if found and str(found["key"]) == key else None
        known = self.run.group.first(known)
        if known is None:
            known = self._reference(dataset, batch_size)
            if self.run.group.is_first:
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.with_suffix(".tmp").open("wb") as stream:
                    np.savez(stream, key=np.array(key), **known)
                file.with_suffix(".tmp").rename(file)
        for column, values in known.items():
            dataset = dataset.add_column(column, values.tolist())
        return dataset

    def _reference_key(self, dataset: datasets.Dataset) -> str:
        """Of the rows and the model that the figures are for."""
        digest = hashlib.sha256(json.dumps(self.run.config.model_folder).encode())
        for row in dataset.select_columns(list(IDS)):
            digest.update(json.dumps([row[name] for name in IDS]).encode())
        return digest.hexdigest()

    def _reference(self, dataset: datasets.Dataset, batch_size: int) -> dict[str, Any]:
        """Of every row, by column; a collective."""
        group = self.run.group
        if self._precompute_engine is None:
            self._precompute_engine = prepare_deepspeed(self.model, self.accelerator)
        rows = dataset.select_columns(list(IDS))
        share = -(-len(rows) // group.world_size)
        mine = [index % len(rows) for index in range(group.rank * share, (group.rank + 1) * share)]
        parts = []
        for begin in range(0, share, batch_size):
            examples = [rows[index] for index in mine[begin : begin + batch_size]]
            batch = self._prepare_inputs(self.data_collator(examples))
            parts.append(torch.stack(self.compute_ref_log_probs(self._precompute_engine, batch)).cpu().numpy())
            self.run.watchdog.beat()
        everyone = np.concatenate(group.gather(np.concatenate(parts, axis=1)), axis=1)[:, : len(rows)]
        return dict(zip(REFERENCE, everyone, strict=True))


def run(config: StageConfig, board: Board) -> str:
    return run_stage(config, board, config.dpo, make_trainer)


def make_trainer(stage: Run, settings: Dpo) -> Trainer:
    config = stage.config
    tokenizer = find_tokenizer(config)
    model = build(config, tokenizer, settings.seed)
    check_model(config, settings, tokenizer, model)
    rows = rows_of(config, settings)
    check_chat_template(tokenizer, rows["train_dataset"])
    arguments = DPOConfig(
        **training_arguments(stage, settings),
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        beta=settings.beta,
        loss_type=list(settings.loss_type),
        loss_weights=settings.loss_weights,
        label_smoothing=settings.label_smoothing,
        precompute_ref_log_probs=True,
    )
    trainer = Trainer(
        stage,
        settings,
        model=model,
        args=arguments,
        processing_class=tokenizer,
        peft_config=peft_config(settings),
        **rows,
    )
    report_dropped_rows(trainer, rows, "has a prompt that fills dpo.maxLength")
    return trainer
