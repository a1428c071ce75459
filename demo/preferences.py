"""Makes preferences from the demo's questions: the right answer against a worse one; and prompts without an answer.

    python -m demo.preferences CORPUS_FOLDER OUT_FOLDER

writes, in TRL's formats, `preferences-train.jsonl` and `preferences-heldout.jsonl` (prompt, chosen, rejected),
`labels-train.jsonl` (prompt, completion, label) and `prompts-train.jsonl` (prompt). The rules are in
docs/demo_corpus.md.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from demo.questions import Pair, digest, make_pairs, split

CUT_PER_CENT = range(30, 71)  # of an answer's characters that a cut leaves

Message = dict[str, str]
Row = dict[str, Any]


class Fault(StrEnum):
    """What makes an answer the worse one."""

    WRONG = "wrong"  # it answers another question
    CUT = "cut"  # it ends in the middle of a sentence
    OFF_LANGUAGE = "off-language"  # it is not in the question's language


@dataclass(frozen=True, slots=True)
class Preference:
    """A question with its answer, and a worse one."""

    pair: Pair
    fault: Fault
    rejected: str


def make_preferences(pairs: Sequence[Pair]) -> list[Preference]:
    """One of each pair, in their order. Worse answers come from the same pairs, so a split stays one.

    Raises:
        ValueError: all pairs are of one language, or a language's are all of one page.

    """
    by_language, by_page = defaultdict(list), defaultdict(list)
    for pair in pairs:
        by_language[pair.language].append(pair)
        by_page[pair.page].append(pair)
    faults = list(Fault)
    made = []
    for pair in pairs:
        fault = faults[_choice(pair, "fault", len(faults))]
        match fault:
            case Fault.WRONG:
                rejected = wrong_answer(pair, by_language[pair.language])
            case Fault.CUT:
                rejected = cut_answer(pair)
            case Fault.OFF_LANGUAGE:
                rejected = other_language_answer(pair, by_page[pair.page], pairs)
        made.append(Preference(pair, fault, rejected))
    return made


def wrong_answer(pair: Pair, candidates: Sequence[Pair]) -> str:
    """The answer to a question of another page."""
    return _first(pair, candidates, lambda other: other.page != pair.page, "of another page").answer


def cut_answer(pair: Pair) -> str:
    """The answer's beginning, in whole words where a language has spaces."""
    kept = len(pair.answer) * CUT_PER_CENT[_choice(pair, "cut", len(CUT_PER_CENT))] // 100
    text = pair.answer[:kept]
    if pair.language == "en" and " " in text:
        text = text.rpartition(" ")[0]
    return text.rstrip(" .。!?、,")


def other_language_answer(pair: Pair, page: Sequence[Pair], everyone: Sequence[Pair]) -> str:
    """An answer of the same page in another language, else of any page."""
    candidates = [other for other in page if other.language != pair.language] or everyone
    return _first(pair, candidates, lambda other: other.language != pair.language, "of another language").answer


def _first(pair: Pair, candidates: Sequence[Pair], fits: Callable[[Pair], bool], what: str) -> Pair:
    """The first that fits from a place on that the pair's hash gives."""
    start = _choice(pair, "start", len(candidates))
    for index in range(len(candidates)):
        if fits(other := candidates[(start + index) % len(candidates)]):
            return other
    raise ValueError(f"there is no answer {what} to put beside {pair.question!r}")


def _choice(pair: Pair, purpose: str, count: int) -> int:
    return digest(f"{purpose} {pair.question}") % count


def prompt_of(pair: Pair) -> list[Message]:
    return [{"role": "user", "content": pair.question}]


def says(answer: str) -> list[Message]:
    return [{"role": "assistant", "content": answer}]


def preference_rows(preferences: Iterable[Preference]) -> Iterator[Row]:
    """For reward models and DPO."""
    for one in preferences:
        yield {"prompt": prompt_of(one.pair), "chosen": says(one.pair.answer), "rejected": says(one.rejected)}


def label_rows(preferences: Iterable[Preference]) -> Iterator[Row]:
    """For KTO: each question once, with its answer or the worse one."""
    for one in preferences:
        good = bool(_choice(one.pair, "label", 2))
        answer = one.pair.answer if good else one.rejected
        yield {"prompt": prompt_of(one.pair), "completion": says(answer), "label": good}


def prompt_rows(pairs: Iterable[Pair]) -> Iterator[Row]:
    """For PPO and GRPO."""
    for pair in pairs:
        yield {"prompt": prompt_of(pair)}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_preferences(pairs: Iterable[Pair], out: Path) -> None:
    """Writes the four files into the folder `out`, and prints their sizes."""
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = split(pairs)
    preferences = make_preferences(train)
    write_rows(out / "preferences-train.jsonl", preference_rows(preferences))
    write_rows(out / "preferences-heldout.jsonl", preference_rows(make_preferences(held_out)))
    write_rows(out / "labels-train.jsonl", label_rows(preferences))
    write_rows(out / "prompts-train.jsonl", prompt_rows(train))
    counts = Counter(one.fault.value for one in preferences)
    by_fault = ", ".join(f"{counts[fault]} {fault}" for fault in sorted(counts))
    print(f"{'preferences-train.jsonl':<24} {len(preferences):5} pairs ({by_fault})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.preferences", description="Make preferences and prompts.")
    parser.add_argument("corpus", type=Path, metavar="CORPUS_FOLDER")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    arguments = parser.parse_args()
    try:
        write_preferences(make_pairs(arguments.corpus), arguments.out)
    except FileNotFoundError as error:
        sys.exit(f"demo.preferences: {error.filename} is missing: make the corpus with `python -m demo.corpus` first")


if __name__ == "__main__":
    main()
