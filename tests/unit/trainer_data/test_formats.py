"""Rows in the formats that people have: converted by name, or refused with the file, the line and what to do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_trainer.config import Dpo, Grpo, Kto, RewardModel, Sft
from llm_trainer.config.attempt import DatasetCheck
from llm_trainer.data.formats import Row
from llm_trainer.data.rows import read_placed_rows, read_rows
from llm_trainer.runtime.errors import DataError

from .conftest import WriteLines

URI = "pvc://corpus/rows.jsonl"
STAGES: dict[str, Any] = {
    "sft": (Sft, {}),
    "rewardModel": (RewardModel, {}),
    "dpo": (Dpo, {}),
    "kto": (Kto, {}),
    "grpo": (Grpo, {"rewards": [{"function": "a:b"}]}),
}


def check(kind: str, uri: str = URI) -> DatasetCheck:
    model, settings = STAGES[kind]
    return DatasetCheck.of(model.model_validate({"dataset": {"uri": uri}, **settings}), f"spec.stages[0].{kind}")


def turn(role: str, content: Any, **others: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **others}


ASKED, GOOD, BAD = turn("user", "q"), turn("assistant", "good"), turn("assistant", "bad")
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lyon"}}}


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("sft", {"instruction": "i", "input": "", "output": "o"},
         {"messages": [turn("user", "i"), turn("assistant", "o")]}),
        ("sft", {"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["h", "a"]]},
         {"messages": [turn("system", "s"), turn("user", "h"), turn("assistant", "a"), turn("user", "i\n\nx"),
                       turn("assistant", "o")]}),
        ("sft", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "good"}]},
         {"messages": [ASKED, GOOD]}),
        ("sft", {"conversations": [ASKED, GOOD], "system": "s"}, {"messages": [turn("system", "s"), ASKED, GOOD]}),
        ("sft", {"text": "one"}, {"text": "one"}),
        ("sft", {"messages": [turn("developer", "d"), ASKED, GOOD]},
         {"messages": [turn("developer", "d"), ASKED, GOOD]}),
        ("sft", {"messages": [turn("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), GOOD]},
         {"messages": [turn("user", "ab"), GOOD]}),
        ("sft", {"messages": [{**ASKED, "name": "kim", "weight": 0}, {**GOOD, "thinking": "hm"}]},
         {"messages": [{**ASKED, "name": "kim", "weight": 0}, {**GOOD, "thinking": "hm"}]}),
        ("sft", {"messages": [ASKED, turn("assistant", None, tool_calls=[CALL]), turn("tool", "sunny"), GOOD],
                 "tools": '[{"type": "function", "function": {"name": "weather"}}]'},
         {"messages": [ASKED, turn("assistant", "", tool_calls=[CALL]), turn("tool", "sunny"), GOOD],
          "tools": [{"type": "function", "function": {"name": "weather"}}]}),
        ("sft", {"messages": [ASKED, {"role": "assistant", "tool_calls": [
            {"function": {"name": "weather", "arguments": '{"city": "Lyon"}'}}]}]},
         {"messages": [ASKED, turn("assistant", "", tool_calls=[{"function": CALL["function"]}])]}),
        ("sft", {"prompt": "q", "completion": [GOOD]}, {"prompt": [ASKED], "completion": [GOOD]}),
        ("sft", {"prompt": [ASKED], "completion": "good"}, {"prompt": [ASKED], "completion": [GOOD]}),
        ("sft", {"prompt": "q", "completion": [ASKED, GOOD]}, {"prompt": [ASKED], "completion": [GOOD]}),
        ("dpo", {"prompt": "q", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "score_chosen": 8.0},
         {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}),
        ("dpo", {"prompt": [ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
         {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}),
        ("dpo", {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
         {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}),
        ("dpo", {"prompt": "q", "chosen": [GOOD], "rejected": "bad"},
         {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}),
        ("dpo", {"chosen": "what is it? good", "rejected": "what is it? bad"},
         {"prompt": "what is it?", "chosen": " good", "rejected": " bad"}),
        ("rewardModel", {"chosen": "a ", "rejected": "b "}, {"prompt": "", "chosen": "a ", "rejected": "b "}),
        ("rewardModel", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 2},
         {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 2.0}),
        ("grpo", {"prompt": "q", "answer": None, "id": 3}, {"prompt": "q", "id": 3}),
    ],
)  # fmt: skip
def test_converted(volumes: Path, write_lines: WriteLines, kind: str, row: Row, expected: Row) -> None:
    write_lines("rows.jsonl", [row])
    assert list(read_rows(check(kind), str(volumes))) == [expected]


@pytest.mark.parametrize(
    ("kind", "row", "says"),
    [
        ("dpo", {"instruction": "i", "output": "o"}, "That is the Alpaca format, which sft reads"),
        ("dpo", {"conversations": []}, "That is the ShareGPT format"),
        ("sft", {"conversations": [{"from": "narrator", "value": "x"}]}, "conversations[0] is"),
        ("sft", {"conversations": [{"from": ["x"], "value": "x"}]}, "conversations[0] is"),
        ("sft", {"conversations": "x"}, "conversations must be a list"),
        ("sft", {"instruction": 3, "output": "o"}, "instruction must be a string, not 3"),
        ("sft", {"instruction": "i", "output": "o", "history": [["q"]]},
         "history must be a list of [question, answer]"),
        ("sft", {"messages": [{"from": "human", "value": "q"}]}, "messages[0] is of the ShareGPT format"),
        ("sft", {"messages": [turn("user", [{"type": "text", "text": "q"}, {"type": "image"}]), GOOD]},
         'messages[0].content[1] is {"type": "image"}: a language model reads parts of text alone'),
        ("sft", {"messages": [ASKED, GOOD], "images": ["cat.png"]}, "has images: a language model reads text alone"),
        ("grpo", {"prompt": "q", "image": "cat.png"}, "has image: a language model reads text alone"),
        ("sft", {"messages": [ASKED, turn("assistant", " ")]}, "messages[1], an answer, is empty; write an answer"),
        ("sft", {"messages": [ASKED, {**GOOD, "weight": 0}]}, "every answer has weight 0"),
        ("sft", {"messages": [ASKED, {**GOOD, "weight": 0.5}]}, "messages[1].weight must be 0"),
        ("sft", {"messages": [ASKED, {**GOOD, "weight": [1]}]}, "messages[1].weight must be 0"),
        ("sft", {"prompt": "q", "completion": " "}, "completion is empty"),
        ("sft", {"prompt": [ASKED], "completion": [turn("assistant", "")]}, "completion is empty"),
        ("sft", {"prompt": [ASKED], "completion": [ASKED]}, "completion must end with a turn of the assistant"),
        ("sft", {"text": "\n"}, "text is empty"),
        ("sft", {"text": 3}, "text must be a string, not 3"),
        ("sft", {"messages": [turn("user", "q", tool_calls=[CALL]), GOOD]}, "messages[0].tool_calls: only a turn"),
        ("sft", {"messages": [ASKED, turn("assistant", None, tool_calls=[{"id": 1}])]}, "tool_calls[0] must be"),
        ("sft", {"messages": [ASKED, turn("assistant", None, tool_calls=[{"name": "f", "arguments": "{"}])]},
         "tool_calls[0].arguments is a string that is not JSON"),
        ("sft", {"messages": [ASKED, GOOD], "tools": "{"}, "tools is a string that is not JSON"),
        ("sft", {"messages": [ASKED, GOOD], "tools": [3]}, "tools must be a list of JSON schemas"),
        ("sft", {"messages": [ASKED, GOOD], "chat_template_kwargs": 3}, "chat_template_kwargs must be an object"),
        ("dpo", {"prompt": "other", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
         "prompt is text, and chosen and"),
        ("dpo", {"chosen": [GOOD], "rejected": [BAD]}, "have no turn in common, so there is no prompt"),
        ("dpo", {"prompt": [ASKED], "chosen": [GOOD], "rejected": [GOOD]}, "chosen and rejected are equal"),
        ("rewardModel", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": math.nan}, "margin must be a number"),
        ("rewardModel", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": -math.inf},
         "margin must be a number"),
        ("rewardModel", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 10**400}, "margin must be a number"),
        ("kto", {"prompt": "q", "completion": "c", "label": 1}, "label must be true or false, not 1"),
        ("grpo", {"prompt": "q", "completions": 3}, "has the column completions, the name of something else"),
        ("sft", '{"prompt": "cut \\ud83d", "completion": "x"}', "line 2 has half a character in 'prompt'"),
        ("sft", '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "x": NaN}]}',
         "messages is not as JSON has it"),
    ],
)  # fmt: skip
def test_refused(volumes: Path, write_lines: WriteLines, kind: str, row: Any, says: str) -> None:
    write_lines("rows.jsonl", ["", row])
    with pytest.raises(DataError) as error:
        list(read_rows(check(kind), str(volumes)))
    assert str(error.value).startswith(f"spec.stages[0].{kind}.dataset.uri: pvc://corpus/rows.jsonl, line 2"), error
    assert says in str(error.value)


def test_columns_that_nobody_reads_are_told(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", [{"messages": [ASKED, GOOD], "id": 1}, {"messages": [ASKED, GOOD], "weight": 2}])
    unread: set[str] = set()
    assert len(list(read_placed_rows(check("sft"), str(volumes), unread))) == 2
    assert unread == {"id", "weight"}


def test_keys_that_only_other_rows_have_in_parquet(volumes: Path) -> None:
    """Arrow's structs have the keys of all rows; null is none."""
    calls = [[{"function": {"name": "f", "arguments": arguments}}] for arguments in ({"a": 1}, {"b": 1})]
    rows = [[ASKED, turn("assistant", said, tool_calls=call)] for said, call in zip((None, "x"), calls, strict=True)]
    pq.write_table(pa.table({"messages": pa.array(rows)}), volumes / "corpus/rows.parquet")
    read = list(read_rows(check("sft", "pvc://corpus/rows.parquet"), str(volumes)))
    assert [row["messages"][1]["tool_calls"] for row in read] == calls
    assert [set(row["messages"][0]) for row in read] == [{"role", "content"}] * 2
