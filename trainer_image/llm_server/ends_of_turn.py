"""Where answers end that an adapter has learned to end otherwise than its base.

vLLM stops at the ends of the base's generation_config.json alone, whichever adapter answers, and takes no others from
--override-generation-config (try_get_generation_config in vllm/config/model.py). So it gets a folder with those of all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llm_server.arguments import values_of

FLAG = "--generation-config"
FILE = "generation_config.json"
OF_CONFIG = ("eos_token_id", "bos_token_id", "pad_token_id")  # of config.json, where the file is not


def generation_arguments(model: Path, arguments: Sequence[str]) -> list[str]:
    """Empty where the adapters end as the model does, or where the user has said by what it generates."""
    if values_of(arguments, FLAG) is not None:
        return []
    own = own_generation(model)
    known = list(ends_of(own))
    learned = (end for folder in adapters(arguments) for end in ends_of(read(folder / FILE)))
    ends = list(dict.fromkeys([*known, *learned]))
    if ends == known:
        return []
    made = Path(os.environ.get("LLM_SERVER_STATE", "/tmp/llm-server")) / "generation"  # noqa: S108
    made.mkdir(parents=True, exist_ok=True)
    (made / FILE).write_text(json.dumps({**own, "eos_token_id": ends}))
    print(f"llm_server: answers end at the tokens {ends}, by which the model and its adapters end a turn", flush=True)
    return [f"{FLAG}={made}"]


def own_generation(model: Path) -> dict[str, Any]:
    if (model / FILE).is_file():
        return read(model / FILE)
    config = read(model / "config.json")
    return {name: config[name] for name in OF_CONFIG if config.get(name) is not None}


def adapters(arguments: Sequence[str]) -> Iterator[Path]:
    for module in values_of(arguments, "--lora-modules") or ():
        try:
            yield Path(json.loads(module)["path"])
        except (ValueError, KeyError, TypeError):
            continue  # vLLM tells it


def read(file: Path) -> dict[str, Any]:
    """Nothing where it is no JSON object: no adapter keeps its base from being served."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        print(f"llm_server: {file} can't be read, so its ends of a turn are not known: {error}", flush=True)
        return {}
    return found if isinstance(found, dict) else {}


def ends_of(generation: dict[str, Any]) -> Iterator[int]:
    told = generation.get("eos_token_id")
    yield from (end for end in (told if isinstance(told, list) else [told]) if type(end) is int)
