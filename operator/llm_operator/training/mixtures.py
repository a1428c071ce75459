"""Whether the sources have the tokens that mixtures ask for, by what data preparation has told. Pure.

Data preparation looks at the mixtures that it is told of; one changed later would else fail with its GPUs taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from llm_operator.api.training import DATA_STAGE, LLMTrainingSpec
from llm_operator.api.training_status import StageStatus
from llm_operator.training.stages import mixture_checks
from llm_trainer.config import MixtureCheck
from llm_trainer.config.allotment import Part, TooFewTokensError, allotted

MOST_SHARES = 1024  # of sources in phases, all mixtures together: of more the stages tell, as it would take long here
REMEMBERED = 1024  # trainings

Source = tuple[tuple[str, str, str], int]  # name, domain, language; tokens


def token_problems(spec: LLMTrainingSpec, known: Sequence[StageStatus]) -> Iterator[str]:
    """Of the stages of a valid spec that have not begun, or have failed: the mixture of another can't be changed."""
    tokens = told_tokens(known)
    if not tokens or spec.data is None:
        return
    begun = {stage.name for stage in known if stage.state in ("Running", "Succeeded")}
    checks = list(mixture_checks(spec))
    shares = sum(len(tokens) * len(check.mixture.phases()) for check in checks)
    if shares > MOST_SHARES or all(check.stage in begun for check in checks):
        return
    sources = [(each.name, each.domain, each.language) for each in spec.data.sources if each.name in tokens]
    told = tuple((labels, tokens[labels[0]]) for labels in sources)
    for stage, problem in too_small(tuple(check.model_dump_json() for check in checks), told):
        if stage not in begun:
            yield problem


def told_tokens(known: Sequence[StageStatus]) -> Mapping[str, int]:
    """By source; of those alone that have any. Empty: not known."""
    told = next((stage for stage in known if stage.name == DATA_STAGE and stage.state == "Succeeded"), None)
    return told.data.sources if told and told.data else {}


@lru_cache(REMEMBERED)
def too_small(checks: tuple[str, ...], sources: tuple[Source, ...]) -> tuple[tuple[str, str], ...]:
    """The stages that can't have what they ask for, and why. Remembered, as each pass asks; `checks` as JSON."""
    found: list[tuple[str, str]] = []
    read: dict[str, list[int]] = {}  # rows of each source, once a stage has ended
    for check in map(MixtureCheck.model_validate_json, checks):
        length = check.length
        parts = [Part(*labels, tokens, tokens // length) for labels, tokens in sources]
        starts = read.get(check.after, [0] * len(parts))
        try:
            given = allotted(check.mixture, parts, check.rows, length, starts, check.field)
        except TooFewTokensError as error:
            found.append((check.stage, str(error)))
        else:
            read[check.stage] = [sum(rows) for rows in zip(starts, *given.counts, strict=True)]
    return tuple(found)
