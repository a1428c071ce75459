"""Documents about towns that are invented, in two languages, and questions that they alone answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.fine_tune.facts import RELATIONS, TOWNS

WORDING = -2  # of a relation, the one that is asked
HEADINGS = {"mayor": "Town hall", "river": "Landscape", "year": "History", "dish": "Food"}
JAPANESE = {
    "mayor": ("町役場", "{town}の町長は{value}です。", "{town}の町長は誰ですか。"),
    "river": ("地理", "{town}には{value}が流れています。", "{town}を流れる川の名前は何ですか。"),
    "year": ("歴史", "{town}は{value}に開かれました。", "{town}はいつ開かれましたか。"),
    "dish": ("食べ物", "{town}の名物は{value}です。", "{town}の名物は何ですか。"),
}
JAPANESE_TOWNS = {
    "霧原町": {"mayor": "白井弥太郎", "river": "玉瀬川", "year": "1387年", "dish": "栗団子"},
    "瀬波町": {"mayor": "大貫千代", "river": "渡良川", "year": "1642年", "dish": "鰻の燻製"},
    "杉沢町": {"mayor": "北見清子", "river": "石狭川", "year": "1219年", "dish": "蕎麦餅"},
    "塩見町": {"mayor": "戸塚勝", "river": "辺呂川", "year": "1755年", "dish": "葱焼き"},
    "花里町": {"mayor": "久世真理", "river": "安布川", "year": "1508年", "dish": "胡椒汁"},
}


@dataclass(frozen=True)
class Asked:
    """As a row of an evaluation's questions."""

    question: str
    answer: str
    document: str

    def row(self) -> str:
        told = {"question": self.question, "answer": self.answer, "documents": self.document}
        return json.dumps(told, ensure_ascii=False)


def write(folder: Path) -> None:
    """``towns/`` with a document for each town, and ``town-questions.jsonl``."""
    (folder / "towns").mkdir(parents=True)
    for town, text in documents():
        (folder / f"towns/{town}.md").write_text(text, encoding="utf-8")
    rows = "".join(one.row() + "\n" for one in questions())
    (folder / "town-questions.jsonl").write_text(rows, encoding="utf-8")


def documents() -> Iterator[tuple[str, str]]:
    """Name and Markdown of each: a fact under each heading."""
    for town, values in TOWNS.items():
        facts = {
            HEADINGS[name]: RELATIONS[name].answer.format(town=town, value=value) for name, value in values.items()
        }
        yield town, page(town, facts)
    for town, values in JAPANESE_TOWNS.items():
        said = {JAPANESE[name][0]: JAPANESE[name][1].format(town=town, value=value) for name, value in values.items()}
        yield town, page(town, said)


def page(title: str, sections: dict[str, str]) -> str:
    return "\n\n".join([f"# {title}", *(f"## {heading}\n\n{text}" for heading, text in sections.items())]) + "\n"


def questions() -> Iterator[Asked]:
    """One of each fact, 20 in each language."""
    for town, values in TOWNS.items():
        for name, value in values.items():
            yield Asked(RELATIONS[name].questions[WORDING].format(town=town), value, f"{town} › {HEADINGS[name]}")
    for town, values in JAPANESE_TOWNS.items():
        for name, value in values.items():
            yield Asked(JAPANESE[name][2].format(town=town), value, f"{town} › {JAPANESE[name][0]}")
