"""What every tool is to an agent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_app.prompt import Passage
from llm_app.team import Header


class ToolError(Exception):
    """A tool that has not done what it should; the model is told. ``outcome``: a label of metrics."""

    def __init__(self, message: str, outcome: str = "failed") -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True)
class Result:
    """What a tool has answered; ``passages`` are cited by numbers."""

    text: str = ""
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True)
class Offer:
    """A tool as a model sees it. ``schema`` as it was given, ``strict`` as it is kept to."""

    name: str
    description: str
    schema: Mapping[str, Any]
    strict: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """One of spec.tools. What it offers may be more than one tool, and may not be known yet: an MCP server's."""

    async def open(self) -> None:
        """Before the server answers. Raises ValueError if it can't be used as it is written."""
        ...

    async def offers(self) -> Sequence[Offer]: ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        """Raises ToolError."""
        ...

    async def close(self) -> None: ...


def headers_of(given: Sequence[Header]) -> dict[str, str]:
    return {one.name: os.environ.get(one.variable, "") if one.variable else one.value for one in given}
