"""The objects in the files that ``kubectl apply -f`` takes: YAML, JSON, folders, - for standard input, lists."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_operator.kubectl_yaml import UnreadableError, documents

EXTENSIONS = (".json", ".yaml", ".yml")  # that kubectl reads in a folder
MOST_BYTES = 16 << 20  # an API server takes 3 MiB
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass
class Contents:
    """``objects`` have a kind. ``problems``: what can't be read. ``warnings``: what kubectl reads without a word."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read(names: Iterable[str]) -> Contents:
    """Never raises; what is broken doesn't hide what comes before it, nor other files."""
    contents = Contents()
    for name in names:
        try:
            for file in files_of(name):
                read_file(file, contents)
        except OSError as error:
            contents.problems.append(f"{name}: {error.strerror or error}")
    return contents


def files_of(name: str) -> list[str]:
    """Those of a folder, but not of the folders in it; raises OSError."""
    folder = Path(name)
    if name == "-" or not folder.is_dir():
        return [name]
    found = sorted(str(file) for file in folder.iterdir() if file.suffix in EXTENSIONS and not file.is_dir())
    if not found:
        raise OSError(f"has no file that ends with {', '.join(EXTENSIONS)}")
    return found


def read_file(name: str, contents: Contents) -> None:
    try:
        for document in documents(text_of(name)):
            contents.warnings += (f"{name}: {key} stands twice; kubectl takes the last" for key in document.repeated)
            for found in objects_of(document.value):
                if isinstance(found, str):
                    contents.problems.append(f"{name}: line {document.line}: {found}")
                else:
                    contents.objects.append(found)
    except OSError as error:
        contents.problems.append(f"{name}: {error.strerror or error}")
    except ValueError as error:
        contents.problems.append(f"{name}: {error}")


def text_of(name: str) -> str:
    """Raises OSError and ValueError."""
    if name == "-":
        content = sys.stdin.buffer.read(MOST_BYTES + 1)
    else:
        with Path(name).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES >> 20} MiB; split it, an API server takes 3 MiB at once")
    try:
        return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableError(line, f"is no {error.encoding.upper()}: byte {content[error.start]:#04x}") from None


def objects_of(value: Any) -> Iterator[dict[str, Any] | str]:
    """A document's objects, or what is wrong with one."""
    if not isinstance(value, dict):
        yield f"is {article(value)}, and a manifest is an object with apiVersion, kind, metadata and spec"
        return
    kind = value.get("kind")
    if not isinstance(kind, str) or not kind:
        yield "has no kind, such as LLMTraining" if kind is None else f"kind: is {article(kind)}; write a text"
        return
    if not kind.endswith("List") or "items" not in value:
        yield value
        return
    if not isinstance(value["items"], list):
        yield f"items: is {article(value['items'])}; write a list"
        return
    of_one_kind = {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")}
    for index, item in enumerate(value["items"]):
        if isinstance(item, dict) and (item.get("kind") or kind != "List"):
            yield item if item.get("kind") else of_one_kind | item
        else:
            yield f"items[{index}]: is no object with a kind"


def article(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
