"""The questions of an evaluation: rows of JSON lines, read whole before the first is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_app.documents import DataError, decoded, name_of

MOST_BYTES = 16 << 20
SHOWN = 3


class Question(BaseModel):
    """What is asked, and what is right. ``answer``: one, or several of which each is right."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    question: str = Field(min_length=1, max_length=8192)
    answer: list[str] | str = Field(default_factory=list)
    contains: list[str] | str = Field(default_factory=list)  # all of them are in a right answer
    documents: list[str] | str = Field(default_factory=list)  # titles, headings or sources, of which one must be found

    @property
    def answers(self) -> list[str]:
        return listed(self.answer)

    @property
    def needles(self) -> list[str]:
        return listed(self.contains)

    @property
    def expected(self) -> list[str]:
        return listed(self.documents)


def listed(value: list[str] | str) -> list[str]:
    return [value] if isinstance(value, str) else value


def questions(path: Path, limit: int) -> list[Question]:
    """The first ``limit``. Raises DataError, which names the line, and OSError."""
    if not path.is_file():
        raise DataError(f"{name_of(path)} does not exist, or is no file; correct spec.evaluation.questions")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise DataError(f"{name_of(path)}: has {size >> 20} MiB, and {MOST_BYTES >> 20} MiB are read at most; split it")
    found: list[Question] = []
    for number, line in lines(decoded(path.read_bytes(), name_of(path))):
        if len(found) == limit:
            break
        found.append(question(line, f"{name_of(path)}, line {number}"))
    if not found:
        raise DataError(f"{name_of(path)}: has no question; write one a line, as JSON")
    return found


def lines(text: str) -> Iterator[tuple[int, str]]:
    """That are not empty, by their numbers. Not by splitlines: JSON may hold U+2028."""
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def question(line: str, where: str) -> Question:
    try:
        made = Question.model_validate_json(line)
    except (ValidationError, RecursionError) as error:
        raise DataError(f"{where}: {problem(error)}") from None
    if not (made.answers or made.needles or made.expected):
        raise DataError(f"{where}: has none of answer, contains and documents, so nothing could be right")
    if empty := [one for one in (*made.answers, *made.needles, *made.expected) if not one.strip()]:
        raise DataError(f"{where}: {empty[0]!r} is an answer or a document without a text; remove it")
    return made


def problem(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deep"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else first["msg"]
