"""Supervised fine-tuning: TRL's SFTTrainer on conversations or prompts with completions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from llm_trainer.config import DatasetCheck, Sft, StageConfig
from llm_trainer.data.manifest import TOKENIZER, Split
from llm_trainer.data.rows import SFT_COLUMNS, Row, read_rows, split_rows
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.build import build
from llm_trainer.runtime.errors import ConfigurationError, DataError
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run, start
from llm_trainer.stages.trl_stage import StageTrainer, training_arguments


class Trainer(StageTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer as a stage; its held-out figure is exact whatever the batch size and the number of processes."""

    def held_out_figures(self) -> dict[str, float]:
        """Loss now, and the base model's, which the checkpoints carry along in transformers' history."""
        if self.eval_dataset is None:
            return {}
        loss = self.held_out_loss()
        if self.state.global_step == 0:
            self.state.log_history.append({"step": 0, "baseLoss": loss})
        base = next((row["baseLoss"] for row in self.state.log_history if "baseLoss" in row), None)
        return {"loss": loss} if base is None else {"loss": loss, "baseLoss": base}

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Nats per token over all held-out answers."""
        model = self.model_wrapped
        model.eval()
        total = tokens = 0.0
        for batch, counts in self._held_out_batches():
            with self.compute_loss_context_manager():
                outputs = model(**self._prepare_inputs(batch), use_cache=False, fused_lm_head=True)
            if counts:
                total -= float(outputs.log_probs.double().sum())
                tokens += float(outputs.label_mask.sum())
        model.train()
        total, tokens = self.run.group.sum(total, tokens)
        return total / tokens

    def _held_out_batches(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Batches of this rank, and whether they count: all ranks make equally many, as ZeRO-3 needs it."""
        size, world_size = self.args.per_device_eval_batch_size, self.run.group.world_size
        rows = self.eval_dataset
        mine = range(self.run.group.rank, len(rows), world_size)
        for begin in range(0, math.ceil(len(rows) / world_size), size):
            picked = list(mine[begin : begin + size])
            columns = rows[picked or [0]]
            examples = [{name: columns[name][i] for name in ("input_ids", "labels")} for i in range(len(picked) or 1)]
            yield self.data_collator(examples), bool(picked)


def run(config: StageConfig, board: Board) -> str:
    """Fine-tune; the message of the end.

    Raises DataError and ConfigurationError for what a user has to change, and what `StageTrainer.fit` raises.
    """
    settings = config.sft
    if settings is None or config.model is None:
        raise ConfigurationError("an sft stage needs its settings and a model")
    with start(config, board) as stage:
        trainer = make_trainer(stage, settings)
        trainer.fit()
        return summary(trainer)


def make_trainer(stage: Run, settings: Sft) -> Trainer:
    """The trainer over the stage's rows, already tokenised."""
    config = stage.config
    assert config.model  # noqa: S101 -- checked by run
    tokenizer = find_tokenizer(config)
    model = build(config.model, tokenizer, settings.seed)
    check_length(settings, model.config)
    rows = read_rows(dataset_check(config, settings), config.volumes_root)
    splits = split_rows(rows, settings.dataset.validation_fraction, settings.seed)
    conversational = is_conversational(splits["train"][0])
    if conversational:
        check_chat_template(tokenizer, assistant_only=settings.assistant_only_loss)
    arguments = SFTConfig(
        **training_arguments(stage, settings),
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        assistant_only_loss=settings.assistant_only_loss and conversational,
        packing=False,
    )
    datasets.disable_progress_bars()
    trainer = Trainer(
        stage,
        settings,
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(splits["train"]),
        eval_dataset=datasets.Dataset.from_list(splits["validation"]) if splits["validation"] else None,
        processing_class=tokenizer,
    )
    report_dropped_rows(trainer, settings, splits)
    return trainer


def dataset_check(config: StageConfig, settings: Sft) -> DatasetCheck:
    field = f"stage {config.stage!r}: sft.dataset.uri"
    return DatasetCheck(field=field, uri=settings.dataset.uri, any_of_columns=SFT_COLUMNS)


def find_tokenizer(config: StageConfig) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; that of the prepared data for a model which has none, such as one from scratch."""
    folder = Path(config.model.path) if config.model and config.model.path else None
    if folder and (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(folder, "the model's tokenizer")
    return load_tokenizer(Path(config.data_folder) / TOKENIZER, "the training's tokenizer")


def is_conversational(row: Row) -> bool:
    return isinstance(next(iter(row.values())), list)


def check_chat_template(tokenizer: PreTrainedTokenizerBase, *, assistant_only: bool) -> None:
    """Raises ConfigurationError for a tokenizer by which conversations can't be learned."""
    if not tokenizer.chat_template:
        raise ConfigurationError(
            "the dataset holds conversations, and the model's tokenizer has no chat template to write them: "
            "use prompt and completion as text, or a tokenizer with a chat template"
        )
    if not assistant_only or has_generation_markers(tokenizer.chat_template):
        return
    try:
        get_training_chat_template(tokenizer)  # TRL knows the templates of many models and how to mark them
    except ValueError as error:
        raise ConfigurationError(
            "assistantOnlyLoss needs to know what the assistant says, and the tokenizer's chat template does not mark "
            "it: put {% generation %} … {% endgeneration %} around it, or set assistantOnlyLoss: false to learn whole "
            "conversations"
        ) from error


def check_length(settings: Sft, model_config: Any) -> None:
    """Raises ConfigurationError when rows may be longer than the model's positions."""
    longest = getattr(model_config, "max_position_embeddings", None)
    if longest and settings.max_length > longest:
        raise ConfigurationError(f"sft.maxLength {settings.max_length} is beyond the model's {longest} positions")


def report_dropped_rows(trainer: Trainer, settings: Sft, splits: dict[Split, list[Row]]) -> None:
    """Rows whose answer lies wholly beyond maxLength teach nothing, and TRL leaves them out; say so.

    Raises DataError when none is left.
    """
    length = settings.max_length
    if len(trainer.train_dataset) == 0:
        raise DataError(f"no row of the dataset has a token of its answer within sft.maxLength {length}; raise it")
    if trainer.eval_dataset is not None and len(trainer.eval_dataset) == 0:
        trainer.eval_dataset = None
    kept = len(trainer.train_dataset) + (len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0)
    dropped = sum(map(len, splits.values())) - kept
    if dropped:
        trainer.run.board.notice(
            "RowsDropped", f"{dropped} rows have no token of their answer within sft.maxLength {length}"
        )


def summary(trainer: Trainer) -> str:
    evaluation = trainer.run.board.progress.evaluation
    parts = [f"{trainer.state.global_step} steps on {len(trainer.train_dataset):,} rows"]
    if "loss" in evaluation:
        base = f" from {evaluation['baseLoss']:.3f}" if "baseLoss" in evaluation else ""
        parts.append(f"loss on {len(trainer.eval_dataset):,} held-out rows{base} to {evaluation['loss']:.3f}")
    return ", ".join(parts)
