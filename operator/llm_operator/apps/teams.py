"""What pods are told of tools, agents and sessions, and what they need for it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from llm_app.prompt import render
from llm_app.team import (
    SECRET,
    SESSIONS_FOLDER,
    SESSIONS_URL,
    Agent,
    Bounds,
    Header,
    Http,
    Limits,
    Mcp,
    PythonFunction,
    Search,
    Sessions,
    Team,
    Tool,
)
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.tools import AppTool, Reached
from llm_operator.kube.network import internet, namespaces


def team_of(spec: LLMAppSpec) -> Team | None:
    if not spec.agents:
        return None
    variables, kept = spec.prompt.variables, spec.sessions
    agents = [Agent(**{**one.model_dump(), "instructions": render(one.instructions, variables)}) for one in spec.agents]
    sessions = kept and Sessions(
        postgres=kept.postgres is not None, folder="" if kept.postgres else SESSIONS_FOLDER,
        idle_seconds=kept.idle_seconds, most=kept.most,
    )  # fmt: skip
    tools = [tool_of(at, one) for at, one in enumerate(spec.tools)]
    return Team(tools=tools, agents=agents, workflow=spec.workflow, limits=spec.limits or Limits(), sessions=sessions)


def tool_of(at: int, tool: AppTool) -> Tool:
    made: dict[str, Any] = {}
    if tool.http:
        one = tool.http
        made["http"] = Http(url=one.url, method=one.method, headers=headers_of(at, one),
                            parameters=json.loads(one.parameters), allowed_addresses=one.allowed_addresses)  # fmt: skip
    elif tool.mcp:
        made["mcp"] = Mcp(url=tool.mcp.url, headers=headers_of(at, tool.mcp), tools=tool.mcp.tools,
                          allowed_addresses=tool.mcp.allowed_addresses)  # fmt: skip
    elif tool.python:
        function = tool.python
        made["python"] = PythonFunction(entry_point=function.entry_point, parameters=json.loads(function.parameters))
    elif tool.knowledge:
        made["knowledge"] = Search(names=tool.knowledge.names, top_k=tool.knowledge.top_k)
    bounds = Bounds(timeout_seconds=tool.timeout_seconds, answer_characters=tool.answer_characters)
    return Tool(name=tool.name, description=tool.description, bounds=bounds, **made)


def headers_of(at: int, reached: Reached) -> list[Header]:
    return [
        Header(name=one.name, value=one.value or "", variable=f"{SECRET}{at}_{number}" if one.secret_key_ref else "")
        for number, one in enumerate(reached.headers)
    ]


def secrets(spec: LLMAppSpec) -> dict[str, dict[str, Any]]:
    """Variables of the server's pods, and which key of a Secret each is."""
    made = {
        f"{SECRET}{at}_{number}": header.secret_key_ref.model_dump(by_alias=True)
        for at, tool in enumerate(spec.tools)
        for number, header in enumerate(reached_by(tool).headers if reached_by(tool) else ())  # type: ignore[union-attr]
        if header.secret_key_ref
    }
    if spec.sessions and spec.sessions.postgres:
        made[SESSIONS_URL] = spec.sessions.postgres.secret_key_ref.model_dump(by_alias=True)
    return made


def reached_by(tool: AppTool) -> Reached | None:
    return tool.http or tool.mcp


def egress(spec: LLMAppSpec, own: str) -> Iterator[dict[str, Any]]:
    """Rules for what tools and sessions reach. Whether an address is allowed is the server's to say, which knows it."""
    reached = [one for one in map(reached_by, spec.tools) if one]
    if reached:
        hosts = [(urlsplit(one.url).hostname or "").split(".") for one in reached]
        inside = sorted(
            {own if len(host) == 1 else host[1] for host in hosts if len(host) == 1 or host[2:3] == ["svc"]}
        )
        allowed = sorted({net for tool in reached for net in tool.allowed_addresses})
        yield {"to": [*internet(allowed), *([namespaces(inside)] if inside else [])]}
    if spec.sessions and spec.sessions.postgres:
        yield {"ports": [{"port": spec.sessions.postgres.port, "protocol": "TCP"}]}
