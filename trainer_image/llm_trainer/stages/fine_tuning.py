"""What the stages on a dataset share: the tokenizer, the rows in two splits, and what is checked of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_trainer.checkpoint.fence import Fence
from llm_trainer.config import KINDS, DatasetCheck, FineTuning, Kto, StageConfig, kind_of
from llm_trainer.data.kept_rows import KeptRows
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.shared_rows import RowMaking
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.adapter import check_start
from llm_trainer.models.experts import name_experts, shows_routers
from llm_trainer.models.limits import check_length, check_vocabulary
from llm_trainer.models.low_rank import lora_config
from llm_trainer.models.targets import target_modules
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run, start
from llm_trainer.stages.dataset_rows import sharing_of
from llm_trainer.stages.held_out_rows import evaluated
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
    check_length(model, settings.length, settings.length_name(kind))
    check_vocabulary(model, tokenizer, config.model_folder or "the model")
    if getattr(settings, "router_aux_loss_coef", None) and not shows_routers(model.config):
        raise ConfigurationError(
            f"{kind}.routerAuxLossCoef is for mixtures of experts that show what their routers do, and a "
            f"{model.config.model_type} model does not; leave it out"
        )
    if settings.lora:
        check_start(config, settings.lora, target_modules(model, settings.lora))


def for_trl(
    config: StageConfig, settings: FineTuning, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> PreTrainedModel:
    """The model, which can be trained by the stage and answers what TRL asks it. Raises as `check_model` does."""
    check_model(config, settings, tokenizer, model)
    name_experts(model.config.get_text_config())
    return model


def balance_coefficient(model: PreTrainedModel, written: float | None) -> float | None:
    """TRL's router_aux_loss_coef; None is the model's own. 0 for a mixture that shows nothing of its routers."""
    silent = hasattr(model.config, "output_router_logits") and not shows_routers(model.config)
    return 0.0 if silent else written


def peft_config(model: PreTrainedModel, settings: FineTuning, task: str = "CAUSAL_LM", head: str | None = None) -> Any:
    """Peft's configuration; None if the stage trains the model itself."""
    return lora_config(model, settings.lora, task, head) if settings.lora else None


class TokenisedRows:
    """Comes before a TRL trainer among the bases: the rows are tokens already, as TRL's collators take them."""

    def _prepare_dataset(self, dataset: datasets.Dataset, *_: Any, **__: Any) -> datasets.Dataset:
        return dataset


def check_of(config: StageConfig, settings: FineTuning) -> DatasetCheck:
    return DatasetCheck.of(settings, f"stage {config.stage!r}: {KINDS[kind_of(config)]}")


def rows_of(
    config: StageConfig, settings: FineTuning, tokenizer: PreTrainedTokenizerBase, board: Board, rank: int = 0
) -> dict[str, datasets.Dataset]:
    """`train_dataset`, and `eval_dataset` if anything is held out, in tokens. All processes of the stage call it.

    Raises DataError and ConfigurationError, and tells notices, as data preparation has done.
    """
    kept = kept_rows(config, check_of(config, settings), tokenizer, rank)
    for notice in kept.notices:
        board.notice(notice.reason, notice.message)
    places = np.array(evaluated(range(len(kept.held_out)), settings), dtype=np.int64)
    splits = {"train_dataset": kept.train, "eval_dataset": kept.held_out.take(pa.array(places))}
    if isinstance(settings, Kto):
        splits = {name: with_mismatches(rows, settings.micro_batch_size) for name, rows in splits.items()}
    made = {name: datasets.Dataset(datasets.table.InMemoryTable(rows)) for name, rows in splits.items()}
    return {name: rows for name, rows in made.items() if len(rows) or name == "train_dataset"}


def kept_rows(config: StageConfig, check: DatasetCheck, tokenizer: PreTrainedTokenizerBase, rank: int) -> KeptRows:
    """Those that data preparation has kept; else the stage's processes make them together."""
    may_write = Fence(config).check
    sharing = sharing_of(config, may_write, may_write, rank)
    return RowMaking(check, tokenizer, config.volumes_root, sharing).find_or_make()


def with_mismatches(rows: pa.Table, size: int) -> pa.Table:
    """KTO's estimate of the KL divergence needs answers to other prompts: the one before in the same micro-batch."""
    places = [
        begin + (place - 1) % min(size, len(rows) - begin)
        for begin in range(0, len(rows), size)
        for place in range(min(size, len(rows) - begin))
    ]
    return rows.append_column("KL_completion_ids", rows["completion_ids"].take(pa.array(places, pa.int64())))
