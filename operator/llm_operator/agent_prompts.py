"""What each agent of an LLMApp would be told with a question, as ``python -m llm_operator prompt`` prints it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from llm_app import agent_prompt
from llm_app.prompt import Turn, render, text_of, tokens
from llm_app.team import HandOver, Team, Tool
from llm_app.tools.base import Offer
from llm_app.tools.offers import known_offers
from llm_app.tools.openapi import DocumentError
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.tools import OpenApiTool
from llm_operator.apps.budget import too_long_for
from llm_operator.apps.teams import team_of

Document = Callable[[OpenApiTool], str]  # what a document has that lies elsewhere; empty if it is not here


class CantWorkError(ValueError):
    """What is wrong with a tool's document, or has no room in the context."""


def told(name: str, spec: LLMAppSpec, asked: str, context: int | None, document: Document) -> Iterator[str]:
    """Raises CantWorkError or PromptTooLongError."""
    team = team_of(spec, {})
    assert team  # noqa: S101 -- the caller has looked
    if too_long := too_long_for(context, spec):
        raise CantWorkError(too_long)
    offers = {
        tool.name: offers_of(tool, given.openapi, document) for tool, given in zip(team.tools, spec.tools, strict=True)
    }
    serving = spec.model.serving
    model = (
        f"the adapter {serving.adapter} of LLMServing {serving.name}"
        if serving.adapter
        else f"LLMServing {serving.name}"
    )
    yield f"LLMApp {name} would ask {model} as {how(team)}. At its first turn each of them is told:"
    for agent in team.agents:
        yield f"=== agent {agent.name}"
        offered = [one for tool in agent.tools for one in offers[tool]]
        others = [one for one in team.agents if one.name in beside(team, agent.name)]
        said = agent_prompt.system(render(spec.prompt.system, spec.prompt.variables), agent, offered, others)
        elsewhere = ["NAME", "NAME"] if unknown(team, agent.tools, offers) else []
        calls = [*(one.name for one in offered), *elsewhere]
        decides = bool(calls or others)
        room = agent_prompt.decision_tokens(context) if decides else spec.parameters.max_tokens
        last = agent_prompt.decide(calls, others=bool(others)) if decides else agent_prompt.ANSWER
        budget = context and context - room
        turns: list[Turn] = agent_prompt.turns(said, [{"role": "user", "content": asked}], [], [], last, budget)
        for turn in turns:
            yield f"--- {turn['role']}"
            yield text_of(turn)
        what = "what it decides" if decides else "its answer"
        yield f"--- about {sum(tokens(text_of(turn)) for turn in turns)} tokens, and {room} for {what}"


def offers_of(tool: Tool, openapi: OpenApiTool | None, document: Document) -> list[Offer]:
    """Of a tool whose operations are not known here, which is told: none."""
    if tool.mcp:
        print(f"tool {tool.name}: what the MCP server offers is not asked here; left out", file=sys.stderr)
        return []
    text = document(openapi) if openapi and not openapi.inline else ""
    if openapi and not (text or openapi.inline):
        where = openapi.uri or openapi.https or f"ConfigMap {openapi.config_map.name if openapi.config_map else ''}"
        print(f"tool {tool.name}: its document ({where}) is not here; left out", file=sys.stderr)
    try:
        return known_offers(tool, text)
    except DocumentError as error:
        raise CantWorkError(f"tool {tool.name}: its document {error}") from None


def unknown(team: Team, names: list[str], offers: dict[str, list[Offer]]) -> bool:
    """Whether there is a tool of these whose operations are not known here."""
    return any(one.name in names and not offers[one.name] for one in team.tools)


def beside(team: Team, agent: str) -> list[str]:
    """To whom it may hand the conversation over."""
    kind = team.workflow.kind if team.workflow else None
    return [name for name in kind.agents if name != agent] if isinstance(kind, HandOver) else []


def how(team: Team) -> str:
    if team.workflow is None:
        return "one agent"
    kind = next(iter(team.workflow.model_dump(by_alias=True, exclude_none=True)))
    return f"{len(team.agents)} agents ({kind})"
