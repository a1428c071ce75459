"""What must hold of a pretrain stage's mixture beyond its types. How many tokens there are, data preparation tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from llm_trainer.config import Mixture, Pretrain, Selector, Source, selector_lists

SHOWN = 8  # sources in a message


def mixture_problems(pretrain: Pretrain, sources: Sequence[Source], path: str) -> Iterator[str]:
    """`path`: of the mixture."""
    mixture = pretrain.mixture
    if mixture is None:
        return
    yield from share_problems(mixture, path)
    known = Known(sources)
    for field, selectors in selector_lists(mixture):
        yield from selector_problems(selectors, known, f"{path}{field}")
    if pretrain.total_rows:
        for problem in mixture.schedule_problems(pretrain.total_rows, pretrain.sequence_length):
            yield f"{path}{problem}; change it, or remove the phase"


def share_problems(mixture: Mixture, path: str) -> Iterator[str]:
    for field, shares in mixture.phases():
        if shares.weights is not None and shares.temperature is not None:
            yield f"{path}{field}: at most one of weights and temperature may be set; remove one"
        if shares.weights is not None and not any(entry.weight > 0 for entry in shares.weights):
            yield f"{path}{field}.weights: sum to zero, so that nothing would be read; make one of them larger"
    for index, phase in enumerate(mixture.schedule or []):
        here = f"{path}.schedule[{index}]"
        if (phase.from_share is None) == (phase.from_tokens is None):
            yield f"{here}: exactly one of fromShare, fromTokens must be set"
        if phase.weights is None and phase.temperature is None:
            yield f"{here}: needs weights or a temperature; temperature: 1 is by size"


def selector_problems(selectors: Sequence[Selector], known: Known, path: str) -> Iterator[str]:
    """A source goes by the first entry that selects it; one that selects none is a mistake."""
    taken: frozenset[str] = frozenset()
    for index, selector in enumerate(selectors):
        chosen = known.selected(selector)
        if not chosen:
            yield f"{path}[{index}]: selects {selector}, and no source is so; spec.data.sources has {known}"
        elif chosen <= taken:
            yield (
                f"{path}[{index}]: selects {selector}, and its sources, {', '.join(sorted(chosen)[:SHOWN])}, go by "
                "entries before it; put it before those"
            )
        taken |= chosen


class Known:
    """The sources, found by their labels: a mixture of many entries over many sources costs a pass no time."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources, self._all = sources, frozenset(source.name for source in sources)
        labels = (attrgetter("name"), attrgetter("domain"), attrgetter("language"))
        self._by = [
            {label: frozenset(one.name for one in of) for label, of in groupby(sorted(sources, key=get), get)}
            for get in labels
        ]

    def selected(self, selector: Selector) -> frozenset[str]:
        """Their names."""
        found = self._all
        for by, label in zip(self._by, (selector.source, selector.domain, selector.language), strict=True):
            if label is not None:
                found &= by.get(label, frozenset())
        return found

    def __str__(self) -> str:
        parts = [
            f"{source.name} ({', '.join(label for label in (source.domain, source.language) if label) or 'no labels'})"
            for source in self.sources[:SHOWN]
        ]
        more = len(self.sources) - SHOWN
        return ", ".join(parts) + (f" and {more} more" if more > 0 else "")
