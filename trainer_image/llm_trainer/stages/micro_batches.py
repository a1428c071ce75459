"""The micro-batches of each step of a stage on TRL's trainers, in the order that transformers' Trainer gives them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from accelerate import skip_first_batches

from llm_trainer.runtime.batch import DataRank


class MicroBatches(NamedTuple):
    """Of one process in one step."""

    batches: list[dict[str, Any]]
    items: Any  # targets that count, of all processes; None where the loss is a mean over rows
    tokens: int  # that are no padding


class MicroBatchOrder:
    """Which ones follows from the number of the step: any step may be the first, or come after any other."""

    def __init__(self, trainer: Any) -> None:
        self._trainer, self._copies = trainer, trainer.settings.processes_per_row
        with rows_of(trainer.accelerator.state, DataRank.of(trainer.settings, trainer.run.group)):
            self._loader = trainer.get_train_dataloader()
        sizes = trainer.set_initial_training_values(trainer.args, self._loader)
        _, self.steps_per_epoch, _, _, _, batches_per_epoch, self.steps = sizes
        self._size = trainer.args.gradient_accumulation_steps
        self._last_size = batches_per_epoch % self._size or self._size  # of an epoch's last step
        self._iterator: Iterator[Any] = iter(())
        self._next = -1
        self._generators = [(each, each.get_state()) for each in generators(self._loader)]
        self._drawn = 0  # epochs whose order they have drawn
        self._fetched: tuple[int, MicroBatches] | None = None

    def go_on_at(self, step: int) -> None:
        """After a resume, before the states of chance are restored: to begin in an epoch draws, as its begin did."""
        if step % self.steps_per_epoch:
            self._fetched = step, self._fetch(step)

    def of(self, step: int) -> MicroBatches:
        fetched, self._fetched = self._fetched, None
        return fetched[1] if fetched and fetched[0] == step else self._fetch(step)

    def rows(self, epoch: int) -> list[int]:
        """Places of all rows in the order of an epoch, of a dataset whose sampler knows epochs."""
        sampler = list(samplers(self._loader))[-1]
        sampler.set_epoch(epoch)
        return list(sampler)

    def _fetch(self, step: int) -> MicroBatches:
        epoch, place = divmod(step, self.steps_per_epoch)
        if step != self._next or place == 0:
            self._begin(epoch, place)
        size = self._last_size if place == self.steps_per_epoch - 1 else self._size
        self._next = step + 1
        batches, items = self._trainer.get_batch_samples(self._iterator, size, self._trainer.args.device)
        masks = [batch["attention_mask"] for batch in batches if "attention_mask" in batch]
        return MicroBatches(batches, self.each_once(items), sum(int(mask.sum()) for mask in masks))

    def each_once(self, items: Any) -> Any:
        """Of all processes, of which some have the same rows."""
        return items if items is None else items // self._copies

    def _begin(self, epoch: int, place: int) -> None:
        self._pass_over(epoch)
        loader = skip_first_batches(self._loader, place * self._size) if place else self._loader
        for part in [loader, *samplers(loader)]:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        self._iterator = iter(loader)

    def _pass_over(self, epochs: int) -> None:
        """TRL's sampler of prompts draws every epoch's order from one generator; transformers' knows the epoch."""
        if epochs < self._drawn:
            self._drawn = 0
            for generator, state in self._generators:
                generator.set_state(state)
        for sampler in samplers(self._loader):
            if draws(sampler):
                for _ in range(epochs - self._drawn):
                    next(iter(sampler), None)
        self._drawn = epochs + 1


@contextmanager
def rows_of(state: Any, rank: DataRank) -> Iterator[None]:
    """While a loader is made, accelerate gives it the rows of this rank: it knows of none that share theirs."""
    before = state.process_index, state.num_processes
    state.process_index, state.num_processes = rank
    yield
    state.process_index, state.num_processes = before


def samplers(loader: Any) -> Iterator[Any]:
    """Of a loader, from that of its batches, or what shares them out between processes, to that of its rows."""
    within = loader.batch_sampler
    while within is not None:
        yield within
        within = getattr(within, "batch_sampler", None) or getattr(within, "sampler", None)


def draws(sampler: Any) -> bool:
    """Whether it takes an epoch's order from a generator of its own."""
    return isinstance(getattr(sampler, "generator", None), torch.Generator) and not hasattr(sampler, "set_epoch")


def generators(loader: Any) -> list[torch.Generator]:
    return [sampler.generator for sampler in samplers(loader) if draws(sampler)]
