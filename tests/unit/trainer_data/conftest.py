from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import Data, Source

WriteLines = Callable[[str, Iterable[Any]], Path]


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Stands where claims are mounted; has the claim `corpus`."""
    (tmp_path / "corpus").mkdir()
    return tmp_path


@pytest.fixture
def write_lines(volumes: Path) -> WriteLines:
    """Writes a JSONL file into the claim `corpus`; a line that is a str or bytes is written as it is."""

    def write(name: str, lines: Iterable[Any]) -> Path:
        path = volumes / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(_line(line) + b"\n" for line in lines))
        return path

    return write


def _line(line: object) -> bytes:
    if isinstance(line, bytes):
        return line
    return (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)).encode()


def corpus_of(*files: str, **settings: Any) -> Data:
    """A corpus with one source per file name of the claim `corpus`, named a, b, c…"""
    sources = [Source(name=chr(ord("a") + i), uri=f"pvc://corpus/{file}") for i, file in enumerate(files)]
    return Data(sources=sources, **settings)
