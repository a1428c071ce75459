"""What pods are told of tools, agents and sessions, and what they need for it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from llm_app.config import CONFIG_FOLDER
from llm_app.prompt import render
from llm_app.team import (
    DOCUMENT_FILE,
    SECRET,
    SESSIONS_FOLDER,
    SESSIONS_URL,
    Agent,
    Bounds,
    Header,
    Http,
    Limits,
    Mcp,
    OpenApi,
    PythonFunction,
    Search,
    Sessions,
    Team,
    Tool,
)
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.tools import AppTool, OpenApiTool, Reached
from llm_operator.kube.network import internet, namespaces
from llm_trainer.config import claim_of, local_path


def team_of(spec: LLMAppSpec, digests: Mapping[str, str]) -> Team | None:
    """``digests``: of the documents of tools, which lie in ConfigMaps, by the tool's name."""
    if not spec.agents:
        return None
    variables, kept = spec.prompt.variables, spec.sessions
    agents = [Agent(**{**one.model_dump(), "instructions": render(one.instructions, variables)}) for one in spec.agents]
    sessions = kept and Sessions(
        postgres=kept.postgres is not None, folder="" if kept.postgres else SESSIONS_FOLDER,
        idle_seconds=kept.idle_seconds, most=kept.most,
    )  # fmt: skip
    tools = [tool_of(at, one, digests.get(one.name, "")) for at, one in enumerate(spec.tools)]
    return Team(tools=tools, agents=agents, workflow=spec.workflow, limits=spec.limits or Limits(), sessions=sessions)


def tool_of(at: int, tool: AppTool, digest: str) -> Tool:
    made: dict[str, Any] = {}
    if tool.http:
        one = tool.http
        made["http"] = Http(url=one.url, method=one.method, headers=headers_of(at, one),
                            parameters=json.loads(one.parameters), allowed_addresses=one.allowed_addresses)  # fmt: skip
    elif tool.openapi:
        made["openapi"] = openapi_of(at, tool.openapi, digest)
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


def openapi_of(at: int, tool: OpenApiTool, digest: str) -> OpenApi:
    path = local_path(tool.uri) if tool.uri else f"{document_folder(at)}/{DOCUMENT_FILE}" if tool.config_map else ""
    return OpenApi(
        url=tool.url, headers=headers_of(at, tool), operations=tool.operations,
        allowed_addresses=tool.allowed_addresses, document=tool.inline or "", path=path, digest=digest,
        location=tool.https or "",
    )  # fmt: skip


def document_folder(at: int) -> str:
    """Where the document of a tool is mounted, if it lies in a ConfigMap."""
    return f"{CONFIG_FOLDER}/tools/{at}"


def document_volumes(spec: LLMAppSpec) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """With their mounts."""
    for at, tool in enumerate(spec.tools if spec.agents else ()):
        if named := tool.openapi and tool.openapi.config_map:
            items = [{"key": named.key, "path": DOCUMENT_FILE}]
            volume = {"name": f"tool-{at}", "configMap": {"name": named.name, "items": items}}
            yield volume, {"name": f"tool-{at}", "mountPath": document_folder(at), "readOnly": True}


def document_claims(spec: LLMAppSpec) -> list[str]:
    """That hold documents of tools."""
    uris = [tool.openapi.uri for tool in spec.tools if spec.agents and tool.openapi and tool.openapi.uri]
    return [claim for uri in uris if (claim := claim_of(uri))]


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
        for number, header in enumerate(tool.reached.headers if tool.reached else ())
        if header.secret_key_ref
    }
    if spec.sessions and spec.sessions.postgres:
        made[SESSIONS_URL] = spec.sessions.postgres.secret_key_ref.model_dump(by_alias=True)
    return made


def egress(spec: LLMAppSpec, own: str) -> Iterator[dict[str, Any]]:
    """Rules for what tools, sessions and traces reach. Whether an address is allowed is the server's to say, which
    knows it.
    """
    if spec.tracing:
        yield {"to": reached_at([spec.tracing.endpoint], own)}
    reached = [one for one in (tool.reached for tool in spec.tools) if one]
    if reached:
        allowed = sorted({net for tool in reached for net in tool.allowed_addresses})
        yield {"to": reached_at([one.url for one in reached], own, allowed)}
    if spec.sessions and spec.sessions.postgres:
        yield {"ports": [{"port": spec.sessions.postgres.port, "protocol": "TCP"}]}


def reached_at(urls: Sequence[str], own: str, allowed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Public addresses, those that are allowed beside them, and the namespaces that the URLs name."""
    hosts = [(urlsplit(one).hostname or "").split(".") for one in urls]
    inside = sorted({own if len(host) == 1 else host[1] for host in hosts if len(host) == 1 or host[2:3] == ["svc"]})
    return [*internet(allowed), *([namespaces(inside)] if inside else [])]
