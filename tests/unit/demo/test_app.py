"""What the example of a product reads, and what it shows."""

from __future__ import annotations

import json
from pathlib import Path

from demo.app.documents import questions, write
from demo.app.scenario import table

from llm_app.config import Chunking, IndexConfig, IndexSource
from llm_app.index import make
from llm_app.questions import questions as read
from llm_app.store import Index


def test_each_question_is_answered_by_one_passage_that_is_found(tmp_path: Path) -> None:
    """hit@3 of at least 0.9 in English and 0.85 in Japanese, by words alone."""
    write(tmp_path)
    source = IndexSource(name="towns", path=str(tmp_path / "towns"))
    make(
        IndexConfig(knowledge="towns", revision="r", folder=str(tmp_path / "i"), chunking=Chunking(), sources=[source])
    )
    index = Index.load(tmp_path / "i/r")
    asked = read(tmp_path / "town-questions.jsonl", 1000)
    assert len({one.question for one in asked}) == 40
    answered = [any(one.answers[0] in passage.text for passage in index.search(one.question, 3)) for one in asked]
    assert sum(answered[:20]) >= 18, "English"
    assert sum(answered[20:]) >= 17, "Japanese"


def test_a_table_tells_the_languages_apart() -> None:
    rows = [
        {"question": "Which river?", "scores": {"contains": 1.0}},
        {"question": "何川?", "scores": {"contains": 0.0, "hitAt1": 1.0}},
    ]
    lines = table({"alone": rows}).splitlines()
    assert lines[1].split() == ["the", "model", "alone", "100", "100", "0"]
    assert "contains ja" in lines[0]


def test_a_row_is_as_an_evaluation_reads_it() -> None:
    row = json.loads(next(iter(questions())).row())
    assert set(row) == {"question", "answer", "documents"}
