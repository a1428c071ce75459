"""Rows and files in the shapes of public datasets: read, or refused with file, line and what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_trainer.config import DatasetCheck
from llm_trainer.data.examples import Example, Examples
from llm_trainer.runtime.errors import DataError

from .templates import tokenizer_of
from .test_examples import KINDS

QUESTION, ANSWER = {"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "a list"}
CONVERSATION = {"messages": [QUESTION, ANSWER]}
CALL = {"name": "weather", "arguments": '{"city": "Lyon"}'}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "20"}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
PAIR = {"chosen": "good", "rejected": "bad"}


def lines(*rows: Any, end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def zipped(data: bytes, name: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, data)
    return made.getvalue()


def parquet(*rows: Any) -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), made)
    return made.getvalue()


def read(volumes: Path, kind: str, file: str, data: bytes, columns: dict[str, str] | None = None) -> list[Example]:
    """By a tokenizer whose template has tools."""
    (volumes / "corpus" / file).write_bytes(data)
    model, known = KINDS[kind]
    dataset = {"uri": f"pvc://corpus/{file}", "validationFraction": 0.0, "columns": columns or {}}
    micro = {"microBatchSize": 2} if kind == "kto" else {}
    settings = model.model_validate({"dataset": dataset, "globalBatchSize": 2, **micro, **known})
    check = DatasetCheck.of(settings, f"spec.stages[0].{kind}")
    return list(Examples(check, tokenizer_of("qwen2.5"), str(volumes)))


READ: dict[str, tuple[str, str, bytes, dict[str, str]]] = {
    "ShareGPT, with ids": ("sft", "a.jsonl", lines(
        {"id": "x_0", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "a list"}]}), {}),
    "ShareGPT, its roles in capitals": ("sft", "a.jsonl", lines(
        {"conversations": [{"from": "Human", "value": "hi"}, {"from": "Assistant", "value": "a list"}]}), {}),
    "ShareGPT, a function": ("sft", "a.jsonl", lines(
        {"conversations": [{"from": "human", "value": "w?"}, {"from": "function_call", "value": json.dumps(CALL)},
                           {"from": "observation", "value": "20"}, {"from": "gpt", "value": "20"}],
         "tools": json.dumps(TOOLS)}), {}),
    "OpenAI, tools": ("sft", "a.jsonl", lines(
        {"messages": [QUESTION, {"role": "assistant", "content": None,
                                 "tool_calls": [{"id": "1", "type": "function", "function": CALL}]}, RESULT, ANSWER],
         "tools": TOOLS, "parallel_tool_calls": False}), {}),
    "OpenAI, a function as before tools": ("sft", "a.jsonl", lines(
        {"messages": [QUESTION, {"role": "assistant", "content": None, "function_call": CALL},
                      {"role": "function", "name": "weather", "content": "20"}, ANSWER]}), {}),
    "OpenAI, a call without arguments": ("sft", "a.jsonl", lines(
        {"messages": [QUESTION, {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "now", "arguments": ""}}]}, RESULT, ANSWER]}), {}),
    "OpenAI, parts of Responses": ("sft", "a.jsonl", lines(
        {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "q"}]},
                      {"role": "assistant", "content": [{"type": "output_text", "text": "a list"}]}]}), {}),
    "turns as JSON in a cell": ("sft", "a.parquet", parquet({"messages": json.dumps([QUESTION, ANSWER])}), {}),
    "Alpaca": ("sft", "a.jsonl", lines({"instruction": "i", "input": "", "output": "o"}), {}),
    "Dolly": ("sft", "a.jsonl", lines({"instruction": "i", "context": "c", "response": "a list", "category": "x"}),
              {"input": "context", "output": "response"}),
    "OpenOrca": ("sft", "a.parquet", parquet({"id": "1", "system_prompt": "s", "question": "q", "response": "r"}),
                 {"system": "system_prompt", "instruction": "question", "output": "response"}),
    "GSM8K": ("sft", "a.jsonl", lines({"question": "1+1?", "answer": "2 #### 2"}),
              {"prompt": "question", "completion": "answer"}),
    "MetaMath": ("sft", "a.jsonl", lines({"query": "1+1?", "response": "2", "type": "x"}),
                 {"prompt": "query", "completion": "response"}),
    "GSM8K's questions": ("grpo", "a.jsonl", lines(*({"question": f"{n}?", "answer": "2"} for n in range(8))),
                          {"prompt": "question"}),
    "pairs of texts": ("dpo", "a.jsonl", lines({"prompt": "q", **PAIR}), {}),
    "UltraFeedback": ("dpo", "a.parquet", parquet(
        {"prompt": "what is it?", "prompt_id": "f0", "chosen": [QUESTION, ANSWER],
         "rejected": [QUESTION, {"role": "assistant", "content": "no"}], "messages": [QUESTION, ANSWER],
         "score_chosen": 8.5, "score_rejected": 3.0}), {}),
    "HH": ("dpo", "a.jsonl", lines(
        {"chosen": "\n\nHuman: hi\n\nAssistant: good", "rejected": "\n\nHuman: hi\n\nAssistant: bad"}), {}),
    "Orca's pairs": ("dpo", "a.jsonl", lines({"system": "s", "question": "q", **PAIR}), {"prompt": "question"}),
    "KTO": ("kto", "a.jsonl", lines(
        *({"prompt": [QUESTION], "completion": [ANSWER], "label": n % 2 == 0} for n in range(4))), {}),
    "ids of two types": ("sft", "a.jsonl", lines({"id": 5, **CONVERSATION}, {"id": "x", **CONVERSATION}), {}),
    "a huge id": ("sft", "a.jsonl", lines({"id": 10**400, **CONVERSATION}), {}),
    "Windows' line ends": ("sft", "a.jsonl", lines(CONVERSATION, CONVERSATION, end="\r\n"), {}),
    "a byte order mark": ("sft", "a.jsonl", b"\xef\xbb\xbf" + lines(CONVERSATION), {}),
    "zstd": ("sft", "a.jsonl.zst", pa.compress(lines(CONVERSATION), codec="zstd", asbytes=True), {}),
    "bzip2": ("sft", "a.jsonl.bz2", bz2.compress(lines(CONVERSATION)), {}),
    "letters that end lines elsewhere": ("sft", "a.jsonl", lines(
        {"messages": [{"role": "user", "content": "a\u2028b\x85c"}, ANSWER]}), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_read(name: str, volumes: Path) -> None:
    kind, file, data, columns = READ[name]
    made = read(volumes, kind, file, data, columns)
    assert made
    if kind == "sft":
        assert all(any(label >= 0 for label in row["labels"]) for row in made)


REFUSED: dict[str, tuple[str, str, bytes, str]] = {
    "Dolly": ("sft", "a.jsonl", lines({"instruction": "i", "context": "c", "response": "r"}),
              ("line 1 needs the columns messages, or prompt and completion, or text; it has instruction, context, "
              "response. If that is what they are, set dataset.columns: {output: response}")),
    "GSM8K": ("sft", "a.jsonl", lines({"question": "1+1?", "answer": "2"}),
              "set dataset.columns: {prompt: question, completion: answer}"),
    "PPO's queries": ("ppo", "a.jsonl", lines({"query": "q"}), "set dataset.columns: {prompt: query}"),
    "another format": ("sft", "a.jsonl", lines({"conversation": [{"input": "hi", "output": "ho"}]}),
                       "set dataset.columns: {messages: conversation}"),
    "Orca's pairs, without their question": ("dpo", "a.jsonl", lines({"system": "s", "question": "q", **PAIR}),
                                             "line 1: chosen and rejected begin with nothing in common"),
    "SafeRLHF": ("dpo", "a.jsonl", lines({"prompt": "q", "response_0": "a", "response_1": "b"}), "line 1 needs the"),
    "equal answers": ("dpo", "a.jsonl", lines({"prompt": "q", "chosen": "a", "rejected": "a"}), "are equal"),
    "a label in words": ("kto", "a.jsonl", lines({"prompt": "q", "completion": "a", "label": "True"}),
                         "line 1: label must be true or false"),
    "arguments that are no JSON": ("sft", "a.jsonl", lines(
        {"messages": [QUESTION, {"role": "assistant", "tool_calls": [{"name": "w", "arguments": "{city: 3}"}]}]}),
        "line 1: messages[1].tool_calls[0].arguments is a string that is not JSON"),
    "an array": ("sft", "a.json", json.dumps([CONVERSATION]).encode(), "the file is an array; write each element"),
    "an array on many lines": ("sft", "a.json", json.dumps([CONVERSATION], indent=1).encode(), "jq -c .[]"),
    "an object on many lines": ("sft", "a.json", json.dumps(CONVERSATION, indent=1).encode(), "with jq -c ."),
    "a web page": ("sft", "a.jsonl", b"<!DOCTYPE html><html></html>",
                   "line 1 is not JSON: Expecting value at column 1 (it is a web page, as a download"),
    "commas between lines": ("sft", "a.jsonl", b'{"text": "a"},\n{"text": "b"}\n', "line 1 is not JSON: Extra data"),
    "Python's quotes": ("sft", "a.jsonl", b"{'text': 'a'}\n", "line 1 is not JSON"),
    "UTF-16": ("sft", "a.jsonl", lines(CONVERSATION).decode().encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
    "Latin-1": ("sft", "a.jsonl", "{'text': 'é'}\n".encode("latin-1"), "line 1 is not UTF-8"),
    "gzip by another name": ("sft", "a.jsonl", gzip.compress(lines(CONVERSATION)), "is gzip by its first bytes"),
    "a zip archive by another name": ("sft", "a.jsonl", zipped(b"", "a"), "is a zip archive by its first bytes, which"),
    "Parquet by another name": ("sft", "a.jsonl", parquet({"text": "a"}), "is Parquet by its first bytes"),
    "a zip archive in one": ("sft", "a.zip", zipped(zipped(b"", "a"), "b.zip"), "Unpack it"),
    "xz": ("sft", "a.jsonl.xz", lzma.compress(lines(CONVERSATION)), "Unpack it with xz -d"),
    "CSV": ("sft", "a.csv", b"prompt,completion\nq,a\n", "Write it as Parquet: pandas.read_csv"),
    "an empty answer": ("sft", "a.jsonl", lines({"messages": [QUESTION, {"role": "assistant", "content": ""}]}),
                        "line 1: messages[1], an answer, is empty"),
    "a picture": ("sft", "a.jsonl", lines({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER]}), "line 1: messages[0].content[0] is"),
    "no rows": ("sft", "a.jsonl", b"\n\n", "has no rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, volumes: Path) -> None:
    kind, file, data, says = REFUSED[name]
    with pytest.raises(DataError) as refusal:
        read(volumes, kind, file, data)
    assert str(refusal.value).startswith(f"spec.stages[0].{kind}.dataset.uri: pvc://corpus/{file}")
    assert says in str(refusal.value)


def test_what_a_column_is_named_is_told_where_it_is_not_there(volumes: Path) -> None:
    with pytest.raises(DataError, match=r"it has prompt, and not response \(for completion\), as dataset.columns"):
        read(volumes, "sft", "a.jsonl", lines({"question": "q"}), {"prompt": "question", "completion": "response"})


def test_a_column_that_has_the_name_by_chance_makes_room(volumes: Path) -> None:
    row = {"prompt": "written by hand", "question": "q", "answer": "a"}
    named = {"prompt": "question", "completion": "answer"}
    plain = read(volumes, "sft", "a.jsonl", lines({"prompt": "q", "completion": "a"}))
    assert read(volumes, "sft", "a.jsonl", lines(row), named) == plain
    assert read(volumes, "sft", "a.parquet", parquet(row), named) == plain
    swapped = lines({"prompt": "a", "completion": "q"})
    assert read(volumes, "sft", "a.jsonl", swapped, {"prompt": "completion", "completion": "prompt"}) == plain


def test_a_row_of_a_known_format_is_not_read_as_its_text(volumes: Path) -> None:
    alpaca = {"instruction": "i", "input": "", "output": "o"}
    once_more = {**alpaca, "text": "Below is an instruction"}
    assert read(volumes, "sft", "a.jsonl", lines(once_more)) == read(volumes, "sft", "a.jsonl", lines(alpaca))
