"""What differs between the examples that the demo applies: what they read, and what is to be seen of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.setting import Setting


@dataclass(frozen=True)
class Applied:
    """An example that was applied, and whose training, if it has one, has succeeded."""

    name: str  # of its LLMTraining, if it has one, and its LLMServing
    status: dict[str, Any]
    folders: dict[str, Path]  # what was put on each claim
    output: Path


@dataclass(frozen=True)
class Scenario:
    """``gather`` writes below a folder what the example reads, by claim; ``show`` prints what came out."""

    title: str
    gather: Callable[[Path], dict[str, Path]]
    show: Callable[[Setting, Applied], None]
    trains: bool = True  # whether the example has an LLMTraining
