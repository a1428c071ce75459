"""What the stages on a dataset share: the tokenizer, the rows in two splits, and what is checked of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_trainer.config import KINDS, DatasetCheck, FineTuning, StageConfig, kind_of
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.rows import Row, read_rows, split_rows
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.adapter import check_start
from llm_trainer.models.low_rank import lora_config
from llm_trainer.runtime.errors import ConfigurationError, DataError
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run, start
from llm_trainer.stages.trl_stage import StageTrainer, TrlStage

Settings = TypeVar("Settings", bound=FineTuning)


def run_stage(
    config: StageConfig, board: Board, settings: Settings | None, make: Callable[[Run, Settings], StageTrainer]
) -> str:
    """Train by the trainer that `make` gives; the message of the end.

    Raises DataError and ConfigurationError for what a user has to change, and what `Loop.fit` raises.
    """
    if settings is None or config.model is None:
        raise ConfigurationError("a stage needs its settings and a model")
    datasets.disable_progress_bars()
    with start(config, board) as run:
        return TrlStage(make(run, settings)).fit()


def find_tokenizer(config: StageConfig) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; that of the prepared data for a model which has none, such as one from scratch."""
    folder = Path(config.model_folder) if config.model_folder else None
    if folder and (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(folder, "the model's tokenizer")
    return load_tokenizer(Path(config.data_folder) / TOKENIZER, "the training's tokenizer")


def check_model(
    config: StageConfig, settings: FineTuning, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> None:
    """Raises ConfigurationError when the model can't read what the stage would give it."""
    kind = KINDS[kind_of(config)]
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest and settings.length > longest:
        raise ConfigurationError(f"{kind}.maxLength {settings.length} is beyond the model's {longest} positions")
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise ConfigurationError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {embeddings} embeddings, so they don't belong "
            "together; give the model its own tokenizer"
        )
    if getattr(settings, "router_aux_loss_coef", None) and not hasattr(model.config, "output_router_logits"):
        raise ConfigurationError(
            f"{kind}.routerAuxLossCoef is for mixtures of experts that show what their routers do, and a "
            f"{model.config.model_type} model does not; leave it out"
        )
    if settings.lora:
        check_start(config)


def peft_config(model: PreTrainedModel, settings: FineTuning, task: str = "CAUSAL_LM", head: str | None = None) -> Any:
    """Peft's configuration; None if the stage trains the model itself."""
    return lora_config(model, settings.lora, task, head) if settings.lora else None


def rows_of(config: StageConfig, settings: FineTuning) -> dict[str, datasets.Dataset]:
    """`train_dataset`, and `eval_dataset` if anything is held out, as TRL's trainers take them."""
    check = DatasetCheck.of(settings, f"stage {config.stage!r}: {KINDS[kind_of(config)]}")
    splits = split_rows(read_rows(check, config.volumes_root), settings.dataset.validation_fraction, settings.seed)
    optional = [c for c in settings.optional_columns if all(c in row for rows in splits.values() for row in rows)]
    made = {"train_dataset": dataset_of(splits["train"], settings, optional)}
    if splits["validation"]:
        made["eval_dataset"] = dataset_of(splits["validation"], settings, optional)
    return made


def dataset_of(rows: list[Row], settings: FineTuning, optional: list[str]) -> datasets.Dataset:
    """An optional column counts only if every row has it."""
    left_out = set(settings.optional_columns) - set(optional)
    return datasets.Dataset.from_list([{k: v for k, v in row.items() if k not in left_out} for row in rows])


def is_conversational(rows: datasets.Dataset) -> bool:
    return any(isinstance(value, list) for value in rows[0].values())


def check_chat_template(tokenizer: PreTrainedTokenizerBase, rows: datasets.Dataset) -> None:
    """Raises ConfigurationError for conversations that the tokenizer can't write."""
    if is_conversational(rows) and not tokenizer.chat_template:
        raise ConfigurationError(
            "the dataset holds conversations, and the model's tokenizer has no chat template to write them: "
            "use text, or a tokenizer with a chat template"
        )


def report_dropped_rows(trainer: StageTrainer, rows: dict[str, datasets.Dataset], why: str) -> None:
    """TRL leaves out rows that teach nothing at this length; say so.

    Raises DataError when none is left.
    """
    length = trainer.settings.length
    if len(trainer.train_dataset) == 0:
        raise DataError(f"no row of the dataset is left: each {why} {length}; raise it")
    if trainer.eval_dataset is not None and len(trainer.eval_dataset) == 0:
        trainer.eval_dataset = None
    kept = len(trainer.train_dataset) + (len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0)
    if dropped := sum(map(len, rows.values())) - kept:
        trainer.run.board.notice("RowsDropped", f"{dropped} rows are left out: each {why} {length}")
