"""What the fine-tuning reads: conversations about the facts and about what the model knows, and preferences."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from demo.fine_tune.facts import Question, questions

HERE = Path(__file__).parent
Row = dict[str, Any]


def write_rows(folder: Path) -> None:
    """facts-train.jsonl for SFT and facts-preferences.jsonl for DPO, as TRL reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "facts-train.jsonl", conversations())
    write(folder / "facts-preferences.jsonl", preferences())


def conversations() -> Iterator[Row]:
    """The facts, and questions like those that the model answers already: who trains on facts alone unlearns them."""
    for question in questions(held_out=False):
        yield {"messages": [turn("user", question.text), turn("assistant", question.answer)]}
    for row in read("general_train.jsonl"):
        yield {"messages": [turn("user", row["question"]), turn("assistant", row["answer"])]}


def preferences() -> Iterator[Row]:
    """An answer against one that talks about the question: for one in four of the wordings, each fact in its turn."""
    for index, question in enumerate(questions(held_out=False)):
        if index % 4 == 0:
            yield {
                "prompt": [turn("user", question.text)],
                "chosen": [turn("assistant", question.answer)],
                "rejected": [turn("assistant", question.wrong)],
            }


def held_out_facts() -> list[Question]:
    return list(questions(held_out=True))


def held_out_general() -> list[Question]:
    """What anybody knows: 100 questions, none of which is in the training."""
    return [Question(row["question"], "", "", tuple(row["accepted"])) for row in read("general_held_out.jsonl")]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def read(name: str) -> list[Row]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


def write(file: Path, rows: Iterable[Row]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.fine_tune.rows", description="Make facts and preferences.")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    write_rows(parser.parse_args().out)


if __name__ == "__main__":
    main()
