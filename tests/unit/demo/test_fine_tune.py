from __future__ import annotations

from pathlib import Path

from demo.fine_tune.facts import Question
from demo.fine_tune.rows import conversations, held_out_facts, held_out_general, preferences, write_rows
from demo.fine_tune.score import Answered, score


def test_no_question_that_is_asked_is_in_the_training() -> None:
    trained = {row["messages"][0]["content"] for row in conversations()}
    trained |= {row["prompt"][0]["content"] for row in preferences()}
    for questions in (held_out_facts(), held_out_general()):
        asked = {question.text for question in questions}
        assert len(asked) == len(questions)
        assert not asked & trained


def test_every_fact_that_is_asked_is_in_the_training() -> None:
    answers = {row["messages"][1]["content"] for row in conversations()}
    preferred = {row["chosen"][0]["content"] for row in preferences()}
    for question in held_out_facts():
        assert question.answer in answers & preferred
        assert Answered(question, question.answer).right
        assert not Answered(question, question.wrong).right
    assert len(held_out_general()) == 100


def test_only_whole_words_count() -> None:
    question = Question("?", "", "", ("O", "four"))
    told = ["The symbol is O.", "the symbol is o", "fourteen", "There are Four of them.", "Oxygen"]
    answered = [Answered(question, text) for text in told]
    assert [one.right for one in answered] == [True, False, False, True, False]
    assert score(answered) == 40


def test_rows_are_files_of_lines(tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"facts-train.jsonl", "facts-preferences.jsonl"}
    assert len((tmp_path / "facts-train.jsonl").read_text().splitlines()) == len(list(conversations()))
