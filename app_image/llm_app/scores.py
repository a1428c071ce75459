"""How good one answer is, and how good all are. Pure.

Token F1 and exact match are those of SQuAD (Rajpurkar et al., 2016), without its English articles and with each
character of a language without spaces as a token; MRR is the reciprocal of the rank of the first right passage.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llm_app.config import METRICS, Metric
from llm_app.questions import Question
from llm_app.words import UNSPACED

HITS: Mapping[Metric, int] = {"hitAt1": 1, "hitAt3": 3, "hitAt5": 5}
_TOKENS = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[^\W_])+")
_CITED = re.compile(r"\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")

Citations = Sequence[Mapping[str, Any]]  # as the API tells them: every passage that was sent, by rank


def scores(question: Question, said: str, citations: Citations) -> dict[Metric, float]:
    """Each from 0 to 1; those alone for which the question says what is right."""
    return {**found(question, citations), **answered(question, said), **cites(question, citations)}


def found(question: Question, citations: Citations) -> dict[Metric, float]:
    """Whether a right document was among the passages that the model was shown, and how far above."""
    if not question.expected:
        return {}
    ranks = [rank for rank, one in enumerate(citations, 1) if is_expected(question, one)]
    first = ranks[0] if ranks else math.inf
    return {**{name: float(first <= most) for name, most in HITS.items()}, "mrr": 1 / first}


def is_expected(question: Question, citation: Mapping[str, Any]) -> bool:
    """By the name of its source, its document's title, or a heading that it stands under, such as Care › Oil."""
    path = f" › {citation.get('title', '')} › "
    return any(name == citation.get("source") or f" › {name} › " in path for name in question.expected)


def answered(question: Question, said: str) -> dict[Metric, float]:
    made: dict[Metric, float] = {}
    tokens = tokens_of(said)
    if question.needles:
        made["contains"] = float(all(holds(tokens, needle) for needle in question.needles))
    elif question.answers:
        made["contains"] = float(any(holds(tokens, answer) for answer in question.answers))
    if question.answers:
        made["exactMatch"] = float(any(tokens == tokens_of(answer) for answer in question.answers))
        made["f1"] = max(f1(tokens, tokens_of(answer)) for answer in question.answers)
    return made


def cites(question: Question, citations: Citations) -> dict[Metric, float]:
    """Whether the answer names what told it: at least one passage, of a right document if the question names any.

    A number that no passage has is no citation, and the API doesn't tell of it.
    """
    if not citations and not question.expected:
        return {}
    named = [one for one in citations if one.get("cited")]
    right = [one for one in named if is_expected(question, one)] if question.expected else named
    return {"citation": float(bool(right))}


def tokens_of(text: str) -> list[str]:
    """Words in small letters, and single characters of languages without spaces; numbers of citations are none."""
    return _TOKENS.findall(unicodedata.normalize("NFKC", _CITED.sub(" ", text)).casefold())


def holds(tokens: Sequence[str], needle: str) -> bool:
    """As whole words in a row: 4 is not in 40."""
    wanted = tokens_of(needle)
    if not wanted:
        return False
    return any(list(tokens[at : at + len(wanted)]) == wanted for at in range(len(tokens) - len(wanted) + 1))


def f1(said: Sequence[str], right: Sequence[str]) -> float:
    common = sum((Counter(said) & Counter(right)).values())
    return 2 * common / (len(said) + len(right)) if common else 0.0


def summed(rows: Sequence[Mapping[Metric, float]]) -> list[dict[str, Any]]:
    """Of each metric the mean over the questions that have it, and its standard error (0 of a single one)."""
    made = []
    for metric in METRICS:
        values = [row[metric] for row in rows if metric in row]
        if values:
            mean = math.fsum(values) / len(values)
            spread = math.fsum((value - mean) ** 2 for value in values)
            error = math.sqrt(spread / (len(values) - 1) / len(values)) if len(values) > 1 else 0.0
            made.append({"metric": metric, "value": round(mean, 6), "stderr": round(error, 6), "count": len(values)})
    return made
