"""Questions of a task shared over the processes that have a model each, and their answers put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import ConfigDict, TypeAdapter

from llm_trainer.config import Pretrain, TrainingSettings
from llm_trainer.runtime.batch import DataRank
from llm_trainer.runtime.process_group import ProcessGroup

Answer = TypeVar("Answer")
EXACT = ConfigDict(ser_json_inf_nan="constants")  # a likelihood may be -Infinity
LIKELIHOODS = TypeAdapter(list[tuple[float, bool]], config=EXACT)
NUMBERS = TypeAdapter(list[float], config=EXACT)
TEXTS = TypeAdapter(list[str])


class Request(Protocol):
    """As lm-eval's Instance."""

    doc_id: int | None


class Sharing:
    """Which requests are this process's. Every method that asks is called by all together."""

    def __init__(self, settings: TrainingSettings, group: ProcessGroup) -> None:
        """Processes that compute the same rows answer the same requests; with spread experts all are such."""
        self.group, self.settings = group, settings
        self.own = DataRank.of(settings, group)
        if isinstance(settings, Pretrain) and settings.expert_parallel > 1:
            self.own = DataRank(0, 1)

    def answers(
        self, requests: Sequence[Request], ask: Callable[[list[Any]], list[Answer]], kind: TypeAdapter[list[Answer]]
    ) -> list[Answer]:
        """Of all requests, in their order; a collective. `ask` answers some, and is not called for none."""
        if self.own.size == 1:
            return ask(list(requests))
        mine = share(requests, self.own.rank, self.own.size)
        told = self.group.gather(ask([requests[place] for place in mine]) if mine else [], kind)
        answered: dict[int, Answer] = {}
        for rank in range(self.own.size):
            places = share(requests, rank, self.own.size)
            answered |= zip(places, told[rank * self.settings.processes_per_row], strict=True)
        return [answered[place] for place in range(len(requests))]


def share(requests: Sequence[Request], rank: int, size: int) -> list[int]:
    """Places of the requests that are a rank's: those of a question stay together, as they have a beginning in common,
    and questions take turns, as neighbours are alike in length.
    """
    questions = {number: turn for turn, number in enumerate(dict.fromkeys(each.doc_id for each in requests))}
    return [place for place, each in enumerate(requests) if questions[each.doc_id] % size == rank]
