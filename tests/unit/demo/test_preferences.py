import json
from collections import Counter
from pathlib import Path

import pytest
from demo.phrases import Kind
from demo.preferences import Fault, cut_answer, make_preferences, write_preferences
from demo.questions import Pair, split


def pair(number: int, language: str) -> Pair:
    answers = {
        "en": f"Opens the dialog of number {number} in the window. It has two parts.",
        "ja": f"番号 {number} のダイアログを開きます。二つの部分があります。",
    }
    return Pair(f"work/{number}", language, Kind.COMMAND, f"What does {number} do in {language}?", answers[language])


PAIRS = [pair(number, language) for number in range(150) for language in ("en", "ja")]


def test_a_worse_answer_has_the_fault_that_it_is_for() -> None:
    preferences = make_preferences(PAIRS)
    assert [one.pair for one in preferences] == PAIRS
    answers = {one.answer: one for one in PAIRS}
    for one in preferences:
        assert one.rejected
        assert one.rejected != one.pair.answer
        match one.fault:
            case Fault.WRONG:
                other = answers[one.rejected]
                assert (other.language, other.page != one.pair.page) == (one.pair.language, True)
            case Fault.CUT:
                assert one.pair.answer.startswith(one.rejected)
                assert one.rejected[-1] not in ".。 "
            case Fault.OFF_LANGUAGE:
                other = answers[one.rejected]
                assert (other.language != one.pair.language, other.page) == (True, one.pair.page)
    assert min(Counter(one.fault for one in preferences).values()) > len(PAIRS) / 5


def test_a_page_of_one_language_takes_any_answer_of_the_other() -> None:
    pairs = [pair(number, "en") for number in range(30)] + [pair(number, "ja") for number in (98, 99)]
    off = [one for one in make_preferences(pairs) if one.pair.language == "en" and one.fault is Fault.OFF_LANGUAGE]
    assert off
    assert {one.rejected for one in off} <= {pair(98, "ja").answer, pair(99, "ja").answer}


def test_pairs_of_one_language_are_refused() -> None:
    with pytest.raises(ValueError, match="of another language"):
        make_preferences([pair(number, "en") for number in range(30)])


def test_a_cut_keeps_whole_words() -> None:
    for number in range(20):
        one = pair(number, "en")
        assert one.answer[len(cut_answer(one))] in " ."


def test_the_same_preferences_every_time_and_none_from_the_other_split(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_preferences(PAIRS, tmp_path / folder)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    train, held_out = split(PAIRS)
    for name, pairs in (("train", train), ("heldout", held_out)):
        lines = (tmp_path / "one" / f"preferences-{name}.jsonl").read_text().splitlines()
        assert len(lines) == len(pairs) > 0
        for line, one in zip(lines, pairs, strict=True):
            row = json.loads(line)
            assert row["prompt"] == [{"role": "user", "content": one.question}]
            assert row["chosen"] == [{"role": "assistant", "content": one.answer}]
            [rejected] = row["rejected"]
            assert rejected["role"] == "assistant"
            assert any(other.answer.startswith(rejected["content"]) for other in pairs)


def test_labels_tell_the_right_answer_from_the_worse_one(tmp_path: Path) -> None:
    write_preferences(PAIRS, tmp_path)
    answers = {one.question: one.answer for one in PAIRS}
    rows = [json.loads(line) for line in (tmp_path / "labels-train.jsonl").read_text().splitlines()]
    for row in rows:
        assert (row["completion"][0]["content"] == answers[row["prompt"][0]["content"]]) is row["label"]
    assert 0.4 < sum(row["label"] for row in rows) / len(rows) < 0.6
    prompts = [json.loads(line) for line in (tmp_path / "prompts-train.jsonl").read_text().splitlines()]
    assert prompts == [{"prompt": row["prompt"]} for row in rows]
