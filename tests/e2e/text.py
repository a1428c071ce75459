"""A small corpus under the names of the demo's files, so that the examples run on it as they are."""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path

from demo.phrases import Kind
from demo.preferences import write_preferences
from demo.questions import Pair, split, write_messages

ANSWER = 80  # characters
QUESTIONS = 4  # about each topic, in each language


def write_text(folder: Path) -> None:
    """Python's own documentation with its numbers in Japanese, and questions about it in both languages."""
    topics = pydoc_data.topics.topics
    texts = {"en": list(topics.values()), "ja": ["".join(told(key, text, 40)) for key, text in topics.items()]}
    for language, documents in texts.items():
        for domain, part in (("manual", documents[::2]), ("office", documents[1::2])):
            lines = [json.dumps({"text": text}) + "\n" for text in part]
            (folder / f"{domain}-{language}.jsonl").write_text("".join(lines))
    made = list(pairs())
    train = split(made)[0]
    write_messages(folder / "questions-train.jsonl", train)
    write_messages(folder / "questions-train-ja.jsonl", [pair for pair in train if pair.language == "ja"])
    write_preferences(made, folder)


def pairs() -> Iterator[Pair]:
    for key, text in pydoc_data.topics.topics.items():
        words = " ".join(text.split())
        japanese = list(told(key, text, QUESTIONS))
        for number in range(QUESTIONS):
            english = words[number * ANSWER :][:ANSWER].strip() or key
            yield Pair(f"python/{key}", "en", Kind.SECTION, f"What is part {number} of {key}?", f"{english}.")
            yield Pair(f"python/{key}", "ja", Kind.SECTION, f"{key}の第{number}部は何ですか？", japanese[number])


def told(key: str, text: str, parts: int) -> Iterator[str]:
    """Sentences on how often a letter is in a topic's text."""
    for letter in (chr(ord("a") + part % 26) for part in range(parts)):
        yield f"{key}の説明に文字{letter}は{text.count(letter)}回あります。"
