"""What can be said of a model's folder before vLLM reads it, with the field's name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llm_server.arguments import values_of, without

CONFIGURATIONS = ("config.json", "params.json")  # of transformers and of Mistral
OF_ADAPTERS = ("--enable-lora", "--lora-modules", "--max-loras", "--max-lora-rank")
SHOWN = 10


def folder_problem(model: Path) -> str | None:
    """Why there is nothing to serve; None too for a name that is no path, and for a single file."""
    if not model.is_absolute() or model.is_file():
        return None
    if not model.is_dir():
        nearest = next(parent for parent in model.parents if parent.is_dir())
        return f"spec.model: there is no folder {model}; {nearest} holds {names(nearest)}"
    if not any((model / file).is_file() for file in CONFIGURATIONS):
        return f"spec.model: {model} holds no config.json, so it is no transformers folder; it holds {names(model)}"
    return None


def read_config(model: Path) -> dict[str, Any]:
    """Its config.json; raises OSError, and ValueError with the file's name."""
    file = model / "config.json"
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds no JSON object")
    return found


def classes_of(model: Path) -> list[str]:
    """Those that its config.json names, the first that vLLM knows counts; raises as read_config does."""
    named = read_config(model).get("architectures")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def names(folder: Path) -> str:
    found = sorted(path.name for path in folder.iterdir())
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (", ".join(found[:SHOWN]) or "nothing") + more


@cache
def lora_table() -> dict[str, bool]:
    """Every class of a language model that vLLM knows, and whether it loads adapters; see tools/vllm_lora.py."""
    table: dict[str, bool] = json.loads((Path(__file__).parent / "lora.json").read_text())
    return table


def adapter_problem(model: Path, arguments: Sequence[str]) -> str | None:
    """Why vLLM can load no adapter beside this model; None where nothing is known against it."""
    if values_of(arguments, "--enable-lora") is None or not (model / "config.json").is_file():
        return None
    without = [name for name in classes_of(model) if lora_table().get(name) is False]
    if not without:
        return None
    return f"vLLM loads no adapter beside a {without[0]}; merge it into its base (lora.merge) and serve that"


def without_adapters(arguments: Sequence[str]) -> list[str]:
    return without(arguments, OF_ADAPTERS)
