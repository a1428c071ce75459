from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.config import DatasetCheck
from llm_trainer.data.formats import Row
from llm_trainer.data.rows import read_placed_rows, read_rows
from llm_trainer.data.split import held_out, prompt_number, row_number
from llm_trainer.runtime.errors import DataError

from .conftest import WriteLines

FIELD = "spec.stages[1].sft.dataset.uri"
COLUMNS = [["messages"], ["prompt", "completion"]]
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def read(volumes: Path, uri: str = "pvc://corpus/chat.jsonl") -> list[Row]:
    return list(read_rows(DatasetCheck(field=FIELD, uri=uri, any_of_columns=COLUMNS), str(volumes)))


def test_rows_keep_the_columns_the_stage_needs(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("chat.jsonl", [{"messages": TURNS, "id": 1}, {"messages": TURNS, "prompt": None}])
    assert read(volumes) == [{"messages": TURNS}, {"messages": TURNS}]
    write_lines("chat.jsonl", [{"prompt": "p", "completion": "c", "messages": None}])
    assert read(volumes) == [{"prompt": "p", "completion": "c"}]


def test_rows_of_two_formats_are_refused(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("chat.jsonl", [{"messages": TURNS}, {"prompt": "p", "completion": "c"}])
    with pytest.raises(DataError, match="line 2 needs the columns messages; it has prompt, completion"):
        read(volumes)


def test_parquet_rows_are_read(volumes: Path) -> None:
    pq.write_table(pa.table({"prompt": ["p", "q"], "completion": ["c", "d"]}), volumes / "corpus/chat.parquet")
    assert read(volumes, "pvc://corpus/*.parquet") == [
        {"prompt": "p", "completion": "c"},
        {"prompt": "q", "completion": "d"},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON: "),
        (b'{"messages": "\xff"}', "line 2 is not UTF-8: invalid start byte at byte 14"),
        (
            {"text": "x", "prompt": "p"},
            "line 2 needs the columns messages, or prompt and completion; it has text, prompt",
        ),
        ({"messages": []}, "line 2: messages must be a list of {role, content}, not []"),
        ({"messages": "hello"}, 'line 2: messages must be a list of {role, content}, not "hello"'),
        (
            {"messages": TURNS[:1]},
            "line 2: messages has no turn of the assistant, so there is nothing to learn from it",
        ),
        ({"messages": [{"content": "x"}]}, "line 2: messages[0] must be an object with role and content"),
        (
            {"messages": [{"role": "bot", "content": "x"}]},
            "line 2: messages[0].role is 'bot'; it must be one of system, ",
        ),
        ({"messages": [*TURNS, {"role": "user"}]}, "line 2: messages[2].content must be a string"),
        (
            {"prompt": "p", "completion": None},
            "line 2 needs the columns messages, or prompt and completion; it has prompt, completion (null)",
        ),
        (b'{"prompt": "p", "completion": "c", "prompt": "q"}', "an object has the key 'prompt' twice; correct or"),
        (b'{"messages": [{"role": "user", "content": "a", "role": "b"}]}', "an object has the key 'role' twice"),
        ({"instruction": "i", "output": None}, "it has instruction, output (null)"),
        ({"prompt": 3, "completion": "x"}, "line 2: prompt must be a string or a list of {role, content}, not 3"),
    ],
)
def test_a_bad_row_is_named(volumes: Path, write_lines: WriteLines, line: Any, message: str) -> None:
    write_lines("chat.jsonl", ["", line])
    with pytest.raises(DataError) as error:
        read(volumes)
    assert str(error.value).startswith(f"{FIELD}: pvc://corpus/chat.jsonl, ")
    assert message in str(error.value)


def test_a_dataset_without_rows_or_files_is_refused(volumes: Path, write_lines: WriteLines) -> None:
    with pytest.raises(DataError, match=r"no file matches pvc://corpus/chat\.jsonl"):
        read(volumes)
    write_lines("chat.jsonl", [""])
    with pytest.raises(DataError, match=r"sft.dataset.uri: pvc://corpus/chat.jsonl has no rows"):
        read(volumes)
    (volumes / "corpus/chat.txt").write_text("x")
    with pytest.raises(DataError, match=r"chat.txt ends with none of .jsonl, .json, .parquet, .arrow"):
        read(volumes, "pvc://corpus/chat.txt")


ROWS = st.lists(st.fixed_dictionaries({"prompt": st.text(), "completion": st.text()}), min_size=2)


@given(rows=ROWS, seed=st.integers(0, 2**31))
def test_a_prompt_is_held_out_with_all_of_its_rows(rows: list[Row], seed: int) -> None:
    numbers = np.array([row_number(row, seed) for row in rows], dtype=np.uint64)
    prompts = np.array([prompt_number(row) for row in rows], dtype=np.uint64)
    chosen = held_out(numbers, prompts, 0.01, FIELD)
    assert chosen.any() == (len(set(prompts)) > 1)
    kept = {row["prompt"] for row, held in zip(rows, chosen, strict=True) if not held}
    assert not kept & {row["prompt"] for row, held in zip(rows, chosen, strict=True) if held}
    assert not held_out(numbers, prompts, 0, FIELD).any()


def test_conversations_that_ask_the_same_stay_together() -> None:
    with pytest.raises(DataError, match=r"all 2 rows of the dataset are held out. They have 2 different prompts"):
        held_out(np.zeros(2, dtype=np.uint64), np.arange(2, dtype=np.uint64), 0.5, FIELD)
    other = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "r"}]
    rows: list[Row] = [{"messages": TURNS}, {"messages": other}, {"prompt": TURNS[:1], "completion": TURNS[1:]}]
    assert len({prompt_number(row) for row in rows}) == 1
    asked: Row = {"messages": [{"role": "system", "content": "s"}, *TURNS]}
    assert prompt_number(asked) != prompt_number(rows[0])


PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}


def read_pairs(volumes: Path) -> list[Row]:
    check = DatasetCheck(
        field=FIELD, uri="pvc://corpus/pairs.jsonl", any_of_columns=[list(PAIR)], optional_columns=["margin"]
    )
    return list(read_rows(check, str(volumes)))


def test_optional_columns_are_kept(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("pairs.jsonl", [{**PAIR, "margin": 0.5, "id": 1}, PAIR])
    assert read_pairs(volumes) == [{**PAIR, "margin": 0.5}, PAIR]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rejected": "c"}, "line 1: chosen and rejected are equal"),
        ({"chosen": " "}, "line 1: chosen is empty"),
        ({"rejected": ""}, "line 1: rejected is empty"),
        ({"margin": "wide"}, "line 1: margin must be a number"),
    ],
)
def test_pairs_that_teach_nothing(volumes: Path, write_lines: WriteLines, change: Row, says: str) -> None:
    write_lines("pairs.jsonl", [{**PAIR, **change}])
    with pytest.raises(DataError, match=says):
        read_pairs(volumes)


def test_labels_are_true_or_false(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("marked.jsonl", [{"prompt": "p", "completion": "c", "label": 1}])
    columns = [["prompt", "completion", "label"]]
    check = DatasetCheck(field=FIELD, uri="pvc://corpus/marked.jsonl", any_of_columns=columns)
    with pytest.raises(DataError, match="label must be true or false, not 1"):
        list(read_rows(check, str(volumes)))


def test_the_choice_is_the_same_in_every_version(volumes: Path, write_lines: WriteLines) -> None:
    """Of prompts that are all different: a stage that goes on after an upgrade learns from the same rows."""
    write_lines("chat.jsonl", [{"prompt": f"p {number}", "completion": f"c {number}", "id": 1} for number in range(60)])
    check = DatasetCheck(field=FIELD, uri="pvc://corpus/chat.jsonl", any_of_columns=COLUMNS)
    placed = list(read_placed_rows(check, str(volumes)))
    rows = np.array([row_number(each.written, 7) for each in placed], dtype=np.uint64)
    prompts = np.array([prompt_number(each.row) for each in placed], dtype=np.uint64)
    assert np.flatnonzero(held_out(rows, prompts, 0.1, FIELD)).tolist() == [1, 13, 15, 22, 26, 42, 55]
