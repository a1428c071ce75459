"""The rows of each step are those of transformers' own loop, from the first step on or from any other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from trl.trainer.utils import RepeatSampler

from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.stages.micro_batches import MicroBatchOrder

ROWS = 10  # 5 micro-batches of 2, so that an epoch's third step has one instead of two


class Recording(Trainer):  # type: ignore[misc]
    """Of which rows each step of its own loop is made."""

    made: list[list[int]]
    settings: Any  # of a stage, and its run
    run: Any

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        if len(self.made) == self.state.global_step:
            self.made.append([])
        self.made[-1] += rows_of(inputs)
        return super().training_step(model, inputs, num_items_in_batch)


class Repeating(Recording):
    """With TRL's sampler of prompts, whose orders come from one generator."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return RepeatSampler(self.train_dataset, mini_repeat_count=2, batch_size=1, seed=3)


def rows_of(inputs: Any) -> list[int]:
    return [int(row[0]) for row in inputs["input_ids"]]


def trainer(kind: type[Recording], folder: Path, epochs: float) -> Recording:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    rows = [{"input_ids": [index] * 4, "labels": [index] * 4} for index in range(ROWS)]
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=epochs,
        use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, seed=7,
    )  # fmt: skip
    made = kind(model, args=arguments, train_dataset=Dataset.from_list(rows))
    made.made = []
    made.settings = SimpleNamespace(processes_per_row=1)
    made.run = SimpleNamespace(group=ProcessGroup(0, 0, 1, torch.device("cpu")))
    return made


def steps_from(kind: type[Recording], folder: Path, epochs: float, first: int) -> list[list[int]]:
    """What a process that goes on at a step sees of it and of those after it."""
    order = MicroBatchOrder(trainer(kind, folder, epochs))
    if first:
        order.go_on_at(first)
    return [[row for batch in order.of(step).batches for row in rows_of(batch)] for step in range(first, order.steps)]


@pytest.mark.parametrize("kind", [Recording, Repeating])
@pytest.mark.parametrize("epochs", [0.5, 3, 2.4])
def test_it_is_the_order_of_transformers(kind: type[Recording], epochs: float, tmp_path: Path) -> None:
    own = trainer(kind, tmp_path, epochs)
    own.train()
    made = steps_from(kind, tmp_path, epochs, 0)
    assert made == own.made
    assert {len(rows) for rows in made} <= {2, 4}


@pytest.mark.parametrize("kind", [Recording, Repeating])
def test_any_step_may_be_the_first(kind: type[Recording], tmp_path: Path) -> None:
    """In the first epoch, between two, and in a later one."""
    whole = steps_from(kind, tmp_path, 4, 0)
    assert whole[:3] != whole[3:6], "every epoch has an order of its own"
    for first in range(1, len(whole)):
        assert steps_from(kind, tmp_path, 4, first) == whole[first:], first
