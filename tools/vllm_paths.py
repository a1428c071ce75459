"""Prints every path that the installed vLLM can have, as JSON: of all tasks, and with what opens more of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, get_args

OPENERS = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
ARGUMENTS = [
    "--enable-tokenizer-info-endpoint", "--enable-offline-docs", "--tokens-only", "--enable-fault-tolerance",
    '--profiler-config={"profiler": "torch", "torch_profiler_dir": "/tmp"}',
]  # fmt: skip


def paths() -> set[str]:
    """VLLM makes its server as it would at a start, but for a model: routes of pooling ask what it pools to."""
    os.environ.update(OPENERS)
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.tasks import SupportedTask
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(ARGUMENTS)
    model = SimpleNamespace(get_pooling_task=lambda _tasks: "embed", hf_config=SimpleNamespace(num_labels=1))
    return set(below(build_app(arguments, tuple(sorted(words(SupportedTask))), model).routes))


def words(union: Any) -> set[str]:
    """Of a union of literals."""
    return {word for part in get_args(union) for word in ({part} if isinstance(part, str) else words(part))}


def below(routes: Iterable[Any], prefix: str = "") -> Iterator[str]:
    """A mount has routes below its path."""
    for route in routes:
        if not hasattr(route, "path"):
            raise RuntimeError(f"{route!r} has no path: this FastAPI keeps its routes elsewhere")
        yield prefix + route.path
        yield from below(getattr(route, "routes", None) or (), prefix + route.path)


if __name__ == "__main__":
    print(json.dumps(sorted(paths())))
