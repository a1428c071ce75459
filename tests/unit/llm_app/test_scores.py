"""What an answer is worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_app.config import METRICS
from llm_app.documents import DataError
from llm_app.questions import Question, questions
from llm_app.scores import f1, scores, summed, tokens_of

PUMP = Question(question="How often?", answer=["every 40 hours", "40 h"], documents=["Care"])
SENT = [
    {"number": 1, "source": "faq", "title": "Valves", "cited": False},
    {"number": 2, "source": "notes", "title": "Care › Oil", "cited": True},
]


def test_a_right_answer() -> None:
    assert scores(PUMP, "Every 40 hours [2].", SENT) == {
        "hitAt1": 0, "hitAt3": 1, "hitAt5": 1, "mrr": 0.5, "contains": 1, "exactMatch": 1, "f1": 1, "citation": 1,
    }  # fmt: skip


def test_an_answer_of_nothing() -> None:
    assert set(scores(PUMP, "", []).values()) == {0.0}


@pytest.mark.parametrize(
    ("said", "contains"),
    [("It is 40.", True), ("It is 4.", False), ("It is 400.", False), ("４０", True)],
)
def test_a_number_is_a_whole_one(said: str, contains: bool) -> None:
    assert scores(Question(question="x", contains="40"), said, [])["contains"] == contains


def test_all_needles_are_wanted_and_one_answer_is_enough() -> None:
    assert scores(Question(question="x", contains=["red", "valve"]), "a red pump", [])["contains"] == 0
    assert scores(Question(question="x", answer=["red", "blue"]), "It is blue.", [])["contains"] == 1


def test_japanese_is_compared_by_characters() -> None:
    told = scores(Question(question="保証は?", answer="三年"), "保証は三年です", [])
    assert told["contains"] == 1
    assert told["f1"] == pytest.approx(2 * 2 / (7 + 2))


def test_a_citation_of_another_document_is_not_right() -> None:
    wrong = [{**SENT[0], "cited": True}, {**SENT[1], "cited": False}]
    assert scores(PUMP, "40 h [1]", wrong)["citation"] == 0
    assert scores(Question(question="x", answer="y"), "y [1]", wrong)["citation"] == 1
    assert "citation" not in scores(Question(question="x", answer="y"), "y [1]", [])


def test_a_title_is_no_beginning_of_another() -> None:
    assert scores(PUMP, "", [{"number": 1, "source": "a", "title": "Careless", "cited": False}])["hitAt5"] == 0


def test_a_heading_is_enough() -> None:
    below = [{"number": 1, "source": "a", "title": "corpus/a.md › Care › Oil", "cited": False}]
    assert scores(PUMP, "", below)["hitAt1"] == 1


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_f1_is_a_share_and_the_same_both_ways(one: list[str], other: list[str]) -> None:
    assert 0 <= f1(one, other) == f1(other, one) <= 1
    assert (f1(one, other) == 1) == (sorted(one) == sorted(other) != [])


def test_a_mean_has_its_standard_error() -> None:
    rows = [{"f1": 1.0, "judge": 1.0}, {"f1": 0.0}, {"f1": 1.0}, {"f1": 0.0}]
    assert summed(rows) == [  # type: ignore[arg-type]
        {"metric": "f1", "value": 0.5, "stderr": pytest.approx((1 / 3 / 4) ** 0.5, abs=1e-6), "count": 4},
        {"metric": "judge", "value": 1.0, "stderr": 0.0, "count": 1},
    ]
    assert summed([]) == []


def test_the_greatest_word_fits_a_termination_message() -> None:
    """4,096 bytes, with the first problem."""
    rows = [dict.fromkeys(METRICS, 1 / 3), dict.fromkeys(METRICS, 2 / 7)]
    word = {"questions": 10_000, "scores": summed(rows), "failed": 10_000, "firstProblem": "あ" * 300}
    assert len(json.dumps(word, ensure_ascii=False).encode()) < 2500


def test_numbers_of_citations_are_no_words() -> None:
    assert tokens_of("Yes [1], and [2, 3].") == ["yes", "and"]


def test_questions_are_read_by_line(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    rows = [{"question": "a\u2028b", "answer": "x"}, {"question": "c", "documents": ["d"]}]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8")
    assert [one.question for one in questions(file, 10)] == ["a\u2028b", "c"]
    assert len(questions(file, 1)) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no question"),
        ('{"question": "a", "answer": "b"}\n{"question"', "line 2: Invalid JSON"),
        ('{"question": "a"}', "line 1: has none of answer, contains and documents"),
        ('{"question": "", "answer": "b"}', "line 1: question: String should have at least 1"),
        ('{"question": "a", "answer": "b", "expected": "c"}', "line 1: expected: Extra inputs"),
        ('{"question": "a", "answer": [1]}', "line 1: answer"),
        ('{"question": "a", "contains": [" "]}', "line 1: ' ' is an answer or a document without a text"),
        ("[" * 100_000, "line 1: "),
        ("\xff\xfe", "is UTF-16"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=says):
        questions(file, 10)
    with pytest.raises(DataError, match="does not exist"):
        questions(tmp_path / "other", 10)
