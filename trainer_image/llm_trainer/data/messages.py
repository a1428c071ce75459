"""The turns of a conversation, as transformers' chat templates take them: checked, and told of with file and line."""

from __future__ import annotations

import json
from typing import Any

from llm_trainer.runtime.errors import DataError

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_PARTS = ("text", "input_text", "output_text")  # the latter two are those of OpenAI's Responses API
MEDIA = ("image", "images", "audio", "audios", "video", "videos")  # what a language model can't read


def read_messages(value: list[Any], where: str) -> list[Message]:
    """Turns whose content is one string and whose tool calls are objects. Raises DataError with the turn.

    Other keys of a turn (name, thinking, …) stay: the chat template may read them.
    """
    return [read_message(message, f"{where}[{number}]") for number, message in enumerate(value)]


def read_message(message: object, where: str) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        if isinstance(message, dict) and "from" in message and "value" in message:
            raise DataError(
                f"{where} is of the ShareGPT format (from, value): name the column `conversations`, or write role "
                "and content"
            )
        raise DataError(f"{where} must be an object with role and content")
    made = {key: part for key, part in message.items() if part is not None}
    if made["role"] == "function" or "function_call" in made:
        made = of_function(made, where)
    if made["role"] not in ROLES:
        raise DataError(f"{where}.role is {made['role']!r}; it must be one of {', '.join(ROLES)}")
    if "tool_calls" in made:
        if made["role"] != "assistant":
            raise DataError(f"{where}.tool_calls: only a turn of the assistant calls tools, not of {made['role']}")
        made["tool_calls"] = read_tool_calls(made["tool_calls"], f"{where}.tool_calls")
        if not made["tool_calls"]:
            del made["tool_calls"]
    # A template would print None; to all of them an empty text means that nothing is said.
    made["content"] = read_content(made.get("content", "" if "tool_calls" in made else None), where)
    if "weight" in made:
        weight = made["weight"]
        if isinstance(weight, bool) or weight not in (0, 1):
            raise DataError(f"{where}.weight must be 0 (nothing is learned from the turn) or 1, not {shown(weight)}")
    return made


def of_function(message: Message, where: str) -> Message:
    """A turn as OpenAI had it before tools: an answer calls one function, whose result is a turn of its own."""
    made = {**message, "role": "tool" if message["role"] == "function" else message["role"]}
    if "function_call" in made:
        if "tool_calls" in made:
            raise DataError(f"{where} has function_call and tool_calls; leave the calls in one of them")
        made["tool_calls"] = [{"type": "function", "function": made.pop("function_call")}]
    return made


def read_content(content: object, where: str) -> str:
    """Text, also where it is written as parts: `[{"type": "text", "text": …}, …]`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DataError(f"{where}.content must be a string, or a list of text parts, not {shown(content)}")
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
            raise DataError(
                f"{where}.content[{number}] is {shown(part)}: a language model reads parts of text alone, "
                '{"type": "text", "text": …}; remove the others, or the row'
            )
        texts.append(part["text"])
    return "".join(texts)


def read_tool_calls(value: object, where: str) -> list[Message]:
    """Calls with their arguments as an object, as transformers has them; OpenAI's are an object written as a string."""
    if not isinstance(value, list):
        raise DataError(f"{where} must be a list, not {shown(value)}")
    calls = []
    for number, call in enumerate(value):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError(f'{where}[{number}] must be {{"type": "function", "function": {{"name", "arguments"}}}}')
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments.strip():
            arguments = parsed(arguments, f"{where}[{number}].arguments")
        elif isinstance(arguments, str):
            arguments = {}  # a model that gives none may write none
        if not isinstance(arguments, dict | None):
            raise DataError(f"{where}[{number}].arguments must be an object, not {shown(arguments)}")
        whole = {**function, "arguments": arguments or {}}
        calls.append({**call, "function": whole} if "function" in call else {"type": "function", "function": whole})
    return calls


def read_tools(value: object, where: str) -> list[Message]:
    """Descriptions of tools as a chat template takes them; a string holds them as JSON, as Parquet needs it."""
    tools = parsed(value, where) if isinstance(value, str) else value
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and tool for tool in tools):
        raise DataError(f"{where} must be a list of JSON schemas of functions, not {shown(tools)}")
    return tools


def prompt_of(messages: list[Message]) -> list[Message]:
    """What a conversation begins with: all up to the first answer to the user."""
    asked = next((number for number, message in enumerate(messages) if message["role"] == "user"), 0)
    answers = (n for n, message in enumerate(messages) if n > asked and message["role"] == "assistant")
    return messages[: next(answers, len(messages))]


def says_something(message: Message) -> bool:
    return bool(message["content"].strip() or message.get("tool_calls"))


def parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is a string that is not JSON: {error}") from error


def shown(value: object) -> str:
    """The beginning of a value, for a message."""
    return json.dumps(value, ensure_ascii=False, default=repr)[:80]
