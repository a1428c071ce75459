"""All tools of an app: what each agent is offered, and calls that end in time and always with words for the model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema

from llm_app.prompt import Passage
from llm_app.team import Tool
from llm_app.tools.base import Offer, Source, ToolError
from llm_app.tools.figures import ToolFigures
from llm_app.tools.local import KnowledgeSource, PythonSource, Retrieve
from llm_app.tools.schema import without_nulls
from llm_app.tracing import failed, span

CUT = "\n[cut: the answer is longer]"


@dataclass(frozen=True)
class Called:
    """``outcome`` is answered, or why not; ``text`` is for the model in either case."""

    text: str
    outcome: str
    seconds: float = 0.0
    passages: tuple[Passage, ...] = ()


class Toolbox:
    def __init__(self, tools: Sequence[Tool], retrieve: Retrieve, figures: ToolFigures) -> None:
        self._tools = {one.name: one for one in tools}
        self._sources = {one.name: source(one, retrieve) for one in tools}
        self._figures = figures

    async def open(self) -> None:
        """Raises ValueError for a tool that can't be used as it is written."""
        for one in self._sources.values():
            await one.open()

    async def offers(self, names: Sequence[str]) -> list[tuple[str, Offer]]:
        """With the name in spec.tools that each is of."""
        found = await asyncio.gather(*(self._sources[name].offers() for name in names))
        return [(name, one) for name, offers in zip(names, found, strict=True) for one in offers]

    async def call(self, name: str, offer: Offer, arguments: Mapping[str, Any], seconds: float) -> Called:
        """Of the tool ``name`` of spec.tools, in at most so many seconds."""
        attributes: dict[str, Any] = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": offer.name}
        with span(f"execute_tool {offer.name}", **attributes) as told:
            made = await self._called(name, offer, arguments, seconds)
            told.set_attribute("llm_app.outcome", made.outcome)
            if made.outcome != "answered":
                failed(told, made.outcome)
            return made

    async def _called(self, name: str, offer: Offer, arguments: Mapping[str, Any], seconds: float) -> Called:
        began = time.perf_counter()
        bounds = self._tools[name].bounds
        limit = min(seconds, bounds.timeout_seconds)
        passages: tuple[Passage, ...] = ()
        try:
            problem = next(jsonschema.Draft202012Validator(offer.strict).iter_errors(arguments), None)
            if problem:
                raise ToolError(f"the arguments are wrong: {problem.message}"[:500], "invalid")
            async with asyncio.timeout(limit):
                found = await self._sources[name].call(offer.name, without_nulls(arguments, offer.schema))
            text, outcome, passages = found.text, "answered", found.passages
        except TimeoutError:
            text, outcome = f"Error: it has not answered in {limit:.0f} seconds.", "timeout"
        except ToolError as error:
            text, outcome = f"Error: {error}", error.outcome
        took = time.perf_counter() - began
        self._figures.calls.labels(name, outcome).inc()
        self._figures.seconds.labels(name).observe(took)
        if len(text) > bounds.answer_characters:
            text = text[: bounds.answer_characters] + CUT
        return Called(text, outcome, took, passages)

    async def close(self) -> None:
        for one in self._sources.values():
            await one.close()


def source(tool: Tool, retrieve: Retrieve) -> Source:
    """What talks over the network is imported where it is used: it takes memory."""
    if tool.http:
        from llm_app.tools.http import HttpSource

        return HttpSource(tool)
    if tool.openapi:
        from llm_app.tools.openapi_source import OpenApiSource

        return OpenApiSource(tool)
    if tool.mcp:
        from llm_app.tools.mcp import McpSource

        return McpSource(tool)
    return PythonSource(tool) if tool.python else KnowledgeSource(tool, retrieve)
