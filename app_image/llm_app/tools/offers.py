"""What a model is offered of tools that are known from the configuration alone. Pure.

An MCP server's are known when it was asked, and those of an OpenAPI document that lies elsewhere when it was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from llm_app.team import OpenApi, Tool
from llm_app.tools.base import Offer
from llm_app.tools.openapi import DocumentError, Operation, operations
from llm_app.tools.schema import Schema, strict

QUERY = {
    "type": "object",
    "properties": {"query": {"type": "string", "minLength": 1, "description": "What to look for, in its own words."}},
    "required": ["query"],
}


def known_offers(tool: Tool, document: str = "") -> list[Offer]:
    """``document``: of OpenAPI, if it was read elsewhere. Raises SchemaError or DocumentError."""
    if tool.http:
        return [own(tool, tool.http.parameters)]
    if tool.python:
        return [own(tool, tool.python.parameters)]
    if tool.knowledge:
        return [own(tool, QUERY)]
    if tool.openapi and (text := document or tool.openapi.document):
        return [offer for offer, _ in of_document(tool.name, tool.openapi, text)]
    return []


def own(tool: Tool, schema: Schema) -> Offer:
    return Offer(tool.name, tool.description, schema, strict(schema))


def of_document(name: str, openapi: OpenApi, text: str) -> Sequence[tuple[Offer, Operation]]:
    """Each called NAME_OPERATION. Raises DocumentError."""
    return read(name, text, tuple(openapi.operations), tuple(header.name for header in openapi.headers))


@lru_cache(maxsize=64)  # the operator asks in every pass, and a document of 64 KiB takes a tenth of a second
def read(
    name: str, text: str, wanted: tuple[str, ...], headers: tuple[str, ...]
) -> tuple[tuple[Offer, Operation], ...]:
    made: dict[str, tuple[Offer, Operation]] = {}
    for one in operations(text, wanted, headers):
        called = f"{name}_{one.name}"
        if called in made:
            raise DocumentError(f"operation {one.name}: two are called {called!r}; name one of them in operations")
        made[called] = Offer(called, one.description, one.schema, strict(one.schema)), one
    return tuple(made.values())
