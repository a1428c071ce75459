"""Formats of rows: TRL's are read as they are, other known ones by a conversion that has a name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_trainer.data.messages import Message, parsed, shown
from llm_trainer.runtime.errors import DataError

Row = dict[str, Any]

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}


@dataclass(frozen=True)
class Format:
    """Rows with all of `columns`, and perhaps some of `others`, become conversations."""

    name: str
    columns: tuple[str, ...]
    others: tuple[str, ...]
    convert: Callable[[Row, str], list[Message]]


def alpaca(row: Row, where: str) -> list[Message]:
    for column in ("instruction", "input", "output", "system"):
        if not isinstance(row.get(column, ""), str | None):
            raise DataError(f"{where}: {column} must be a string, not {shown(row[column])}")
    question = "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    earlier: list[Message] = []
    for pair in row.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"{where}: history must be a list of [question, answer], not {shown(pair)}")
        earlier += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return [*system, *earlier, {"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]


def sharegpt(row: Row, where: str) -> list[Message]:
    turns = row["conversations"]
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: conversations must be a list of {{from, value}}, not {shown(turns)}")
    made = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for number, turn in enumerate(turns):
        if isinstance(turn, dict) and "role" in turn:
            made.append(turn)
            continue
        who = turn.get("from") if isinstance(turn, dict) else None
        who = who.lower() if isinstance(who, str) else ""
        if not isinstance(turn, dict) or "value" not in turn or who not in SHAREGPT_ROLES:
            raise DataError(
                f"{where}: conversations[{number}] is {shown(turn)}; the ShareGPT format has {{from, value}} with from "
                f"one of {', '.join(SHAREGPT_ROLES)}"
            )
        others = {key: value for key, value in turn.items() if key not in ("from", "value")}  # such as weight
        said = {"content": turn["value"]}
        if who == "function_call":  # a JSON object, {name, arguments}, or a list of them
            calls = parsed(str(turn["value"]), f"{where}: conversations[{number}].value")
            said = {"tool_calls": calls if isinstance(calls, list) else [calls]}
        made.append({**others, "role": SHAREGPT_ROLES[who], **said})
    return made


FORMATS = (
    Format("Alpaca", ("instruction", "output"), ("input", "system", "history"), alpaca),
    Format("ShareGPT", ("conversations",), ("system", "tools"), sharegpt),
)


def format_of(row: Row) -> Format | None:
    """The first known one that has all of its columns."""
    return next((known for known in FORMATS if all(row.get(column) is not None for column in known.columns)), None)


# What a column is often called elsewhere.
OFTEN = {
    "prompt": ("question", "query", "inputs", "problem", "instruction", "input", "user"),
    "completion": ("answer", "response", "output", "targets", "target", "solution", "assistant"),
    "output": ("response", "answer", "completion"),
    "input": ("context",),
    "chosen": ("preferred", "chosen_response", "response_chosen"),
    "rejected": ("rejected_response", "response_rejected"),
    "messages": ("conversation", "chat", "dialogue", "dialog", "turns"),
    "text": ("content", "body"),
}


def likely_columns(row: Row, any_of_columns: list[list[str]]) -> dict[str, str]:
    """Names of a row's columns by what they probably are to a stage; empty if nothing fits."""
    sets = [list(known.columns) for known in FORMATS if ["messages"] in any_of_columns and known.columns[0] in row]
    for columns in (*sets, *any_of_columns):
        found = {
            column: name
            for column in columns
            if column not in row
            for name in [next((name for name in OFTEN.get(column, ()) if row.get(name) is not None), None)]
            if name is not None
        }
        if found and all(column in found or row.get(column) is not None for column in columns):
            return found
    return {}


def align(row: Row, where: str) -> Row:
    """A row of prompt and answers, all text or all turns, with a prompt of its own and answers without it.

    Raises DataError where text and turns don't fit together.
    """
    answers = [column for column in ("completion", "chosen", "rejected") if column in row]
    if not any(isinstance(row.get(column), list) for column in ("prompt", *answers)):
        return row if "prompt" in row else {**row, **split_text(row["chosen"], row["rejected"])}
    made = {column: as_turns(row[column], "assistant") for column in answers}
    lead = shared_lead(list(made.values()))
    prompt = row.get("prompt")
    if prompt is None:
        turns = lead
    elif isinstance(prompt, list):
        turns = prompt
        lead = prompt if all(starts_with(answer, prompt) for answer in made.values()) else []
    elif not lead or lead[0]["role"] == "assistant":
        turns, lead = as_turns(prompt, "user"), []
    elif said(lead[-1]) == said({"role": "user", "content": prompt}):
        turns = lead  # the prompt stands in the answers too
    else:
        raise DataError(
            f"{where}: prompt is text, and {' and '.join(answers)} hold other turns before the answer; write the "
            "prompt as turns, {role, content}, and the answer alone"
        )
    if not turns:
        raise DataError(f"{where}: {' and '.join(answers)} have no turn in common, so there is no prompt; write it")
    return {**row, "prompt": turns, **{column: answer[len(lead) :] for column, answer in made.items()}}


def as_turns(value: str | list[Message], role: str) -> list[Message]:
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def shared_lead(answers: list[list[Message]]) -> list[Message]:
    """The turns that all begin with, before the last of the assistant's."""
    lead: list[Message] = []
    for turns in zip(*(answer[:-1] for answer in answers), strict=False):
        if any(said(turn) != said(turns[0]) for turn in turns) or (
            len(answers) == 1 and turns[0]["role"] == "assistant"
        ):
            break
        lead.append(turns[0])
    return lead


def starts_with(answer: list[Message], prompt: list[Message]) -> bool:
    return len(answer) > len(prompt) and list(map(said, answer[: len(prompt)])) == list(map(said, prompt))


def said(message: Message) -> tuple[str, str, str]:
    """What tells a turn from another: who says what, and calls which tools."""
    return message["role"], message["content"], json.dumps(message.get("tool_calls", []), sort_keys=True)


def split_text(chosen: str, rejected: str) -> Row:
    """The prompt of two answers is what they begin with; a space before their difference belongs to the answers."""
    shorter = min(len(chosen), len(rejected))
    border = next((n for n in range(shorter) if chosen[n] != rejected[n]), shorter - 1)
    if border > 0 and chosen[border] != rejected[border] and chosen[border - 1] == " ":
        border -= 1
    return {"prompt": chosen[:border], "chosen": chosen[border:], "rejected": rejected[border:]}
