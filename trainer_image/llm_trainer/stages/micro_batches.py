"""The micro-batches of each step of a stage on TRL's trainers, in the order that transformers' Trainer gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from accelerate import skip_first_batches


class MicroBatches(NamedTuple):
    """Of one process in one step."""

    batches: list[dict[str, Any]]
    items: Any  # targets that count, of all processes; None where the loss is a mean over rows


class MicroBatchOrder:
    """Which ones follows from the number of the step: any step may be the first, as after a resume."""

    def __init__(self, trainer: Any) -> None:
        self._trainer, self._loader = trainer, trainer.get_train_dataloader()
        sizes = trainer.set_initial_training_values(trainer.args, self._loader)
        _, self.steps_per_epoch, _, _, _, batches_per_epoch, self.steps = sizes
        self._size = trainer.args.gradient_accumulation_steps
        self._last_size = batches_per_epoch % self._size or self._size  # of an epoch's last step
        self._iterator: Iterator[Any] = iter(())
        self._next = -1
        self._fetched: tuple[int, MicroBatches] | None = None

    def go_on_at(self, step: int) -> None:
        """After a resume, before the states of chance are restored: to begin in an epoch draws, as its begin did."""
        if step % self.steps_per_epoch and step < self.steps:
            self._fetched = step, self._fetch(step)

    def of(self, step: int) -> MicroBatches:
        fetched, self._fetched = self._fetched, None
        return fetched[1] if fetched and fetched[0] == step else self._fetch(step)

    def _fetch(self, step: int) -> MicroBatches:
        epoch, place = divmod(step, self.steps_per_epoch)
        if step != self._next or place == 0:
            self._begin(epoch, place)
        size = self._last_size if place == self.steps_per_epoch - 1 else self._size
        self._next = step + 1
        return MicroBatches(*self._trainer.get_batch_samples(self._iterator, size, self._trainer.args.device))

    def _begin(self, epoch: int, place: int) -> None:
        if self._next == -1:
            self._pass_over(epoch)
        loader = skip_first_batches(self._loader, place * self._size) if place else self._loader
        for part in [loader, *samplers(loader)]:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        self._iterator = iter(loader)

    def _pass_over(self, epochs: int) -> None:
        """TRL's sampler of prompts draws every epoch's order from one generator; transformers' knows the epoch."""
        for sampler in samplers(self._loader):
            if isinstance(getattr(sampler, "generator", None), torch.Generator) and not hasattr(sampler, "set_epoch"):
                for _ in range(epochs):
                    next(iter(sampler), None)


def samplers(loader: Any) -> Iterator[Any]:
    """Of a loader, from that of its batches, or what shares them out between processes, to that of its rows."""
    within = loader.batch_sampler
    while within is not None:
        yield within
        within = getattr(within, "batch_sampler", None) or getattr(within, "sampler", None)
