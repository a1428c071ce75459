"""What the stages on a dataset share: the tokenizer, the rows in two splits, and what is checked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_trainer.config import KINDS, DatasetCheck, FineTuning, Kto, StageConfig, kind_of
from llm_trainer.data.examples import Example, Examples
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.adapter import check_start
from llm_trainer.models.limits import check_length, check_vocabulary
from llm_trainer.models.low_rank import lora_config
from llm_trainer.models.targets import target_modules
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run, start
from llm_trainer.stages.held_out_rows import evaluated
from llm_trainer.stages.trl_stage import StageTrainer, TrlStage

Settings = TypeVar("Settings", bound=FineTuning)

ROWS_AT_A_TIME = 1024
TOKENS = pa.large_list(pa.int32())
COLUMN_TYPES = {"label": pa.bool_(), "margin": pa.float64()}


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
    if getattr(settings, "router_aux_loss_coef", None) and not hasattr(model.config, "output_router_logits"):
        raise ConfigurationError(
            f"{kind}.routerAuxLossCoef is for mixtures of experts that show what their routers do, and a "
            f"{model.config.model_type} model does not; leave it out"
        )
    if settings.lora:
        check_start(config, settings.lora, target_modules(model, settings.lora))


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
    config: StageConfig, settings: FineTuning, tokenizer: PreTrainedTokenizerBase, board: Board
) -> dict[str, datasets.Dataset]:
    """`train_dataset`, and `eval_dataset` if anything is held out, in tokens.

    Raises DataError and ConfigurationError, and tells notices, as data preparation has done.
    """
    examples = Examples(check_of(config, settings), tokenizer, config.volumes_root)
    table = table_of(examples)
    chosen = examples.held_out()
    for notice in examples.notices():
        board.notice(notice.reason, notice.message)
    held_out = np.array(evaluated(np.flatnonzero(chosen).tolist(), settings), dtype=np.int64)
    splits = {"train_dataset": table.filter(pa.array(~chosen)), "eval_dataset": table.take(pa.array(held_out))}
    if isinstance(settings, Kto):
        splits = {name: with_mismatches(rows, settings.micro_batch_size) for name, rows in splits.items()}
    made = {name: datasets.Dataset(datasets.table.InMemoryTable(rows)) for name, rows in splits.items()}
    return {name: rows for name, rows in made.items() if len(rows) or name == "train_dataset"}


def table_of(examples: Iterable[Example]) -> pa.Table:
    """Tokens as int32, four bytes each. A margin counts as 0 where only other rows have one."""
    tables = []
    for batch in batched(examples, ROWS_AT_A_TIME):
        arrays = {
            name: pa.array([example[name] for example in batch], type=COLUMN_TYPES.get(name, TOKENS))
            for name in batch[0]
        }
        tables.append(pa.table(arrays))
    table = pa.concat_tables(tables)
    if "margin" in table.column_names:
        margins = table["margin"]
        table = table.drop_columns("margin")
        if margins.null_count < len(margins):
            table = table.append_column("margin", pc.fill_null(margins, 0.0))
    return table


def with_mismatches(rows: pa.Table, size: int) -> pa.Table:
    """KTO's estimate of the KL divergence needs answers to other prompts: the one before in the same micro-batch."""
    places = [
        begin + (place - 1) % min(size, len(rows) - begin)
        for begin in range(0, len(rows), size)
        for place in range(min(size, len(rows) - begin))
    ]
    return rows.append_column("KL_completion_ids", rows["completion_ids"].take(pa.array(places, pa.int64())))


def batched(items: Iterable[Example], size: int) -> Iterator[list[Example]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
