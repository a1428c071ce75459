"""What must hold of tools, agents, their workflow and their sessions beyond their types."""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterator

from llm_app.prompt import names_in, rendered_letters
from llm_app.team import RESERVED
from llm_app.tools.offers import read
from llm_app.tools.openapi import DocumentError
from llm_app.tools.schema import SchemaError, expression, strict
from llm_operator.api.agents import AppAgent
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.references import exactly_one
from llm_operator.api.tools import AppTool, HttpTool, OpenApiTool, Reached
from llm_trainer.config import local_path

INSTRUCTIONS, DOCUMENTS = 262_144, 131_072  # characters of all agents and tools: pods have them in one ConfigMap
PLACE = re.compile(r"\{([^{}]*)\}")


def agent_problems(spec: LLMAppSpec) -> Iterator[str]:
    yield from named_twice("spec.tools", [one.name for one in spec.tools])
    yield from named_twice("spec.agents", [one.name for one in spec.agents])
    for index, tool in enumerate(spec.tools):
        yield from tool_problems(spec, tool, f"spec.tools[{index}]")
    for index, agent in enumerate(spec.agents):
        yield from one_agent(spec, agent, f"spec.agents[{index}]")
    used = {name for agent in spec.agents for name in agent.tools}
    for index, tool in enumerate(spec.tools):
        if tool.name not in used:
            yield f"spec.tools[{index}].name: no agent has {tool.name!r}; name it in spec.agents[].tools, or remove it"
    yield from size_problems(spec)
    yield from workflow_problems(spec)
    yield from session_problems(spec)


def size_problems(spec: LLMAppSpec) -> Iterator[str]:
    """Counted, not made: a template may be rendered to a thousand times its length."""
    told = sum(sum(rendered_letters(one.instructions, spec.prompt.variables)) for one in spec.agents)
    if told > INSTRUCTIONS:
        yield (
            f"spec.agents: their instructions, with the variables in them, have {told:,} characters, and "
            f"{INSTRUCTIONS:,} are taken; shorten them"
        )
    inline = sum(len(one.openapi.inline or "") for one in spec.tools if one.openapi)
    if inline > DOCUMENTS:
        yield (
            f"spec.tools: their inline documents have {inline:,} characters, and {DOCUMENTS:,} are taken; put them "
            "into ConfigMaps or a claim"
        )


def named_twice(path: str, names: list[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{path}: {count} are named {name!r}; give each its own name"


def tool_problems(spec: LLMAppSpec, tool: AppTool, path: str) -> Iterator[str]:
    yield from exactly_one(path, tool, "http", "openapi", "mcp", "python", "knowledge")
    if tool.name == RESERVED:
        yield f"{path}.name: {RESERVED!r} is what an agent does without a tool; use another name"
    if reached := tool.reached:
        kind = "http" if tool.http else "openapi" if tool.openapi else "mcp"
        yield from reached_problems(reached, f"{path}.{kind}")
    if tool.openapi:
        yield from openapi_problems(tool.name, tool.openapi, f"{path}.openapi")
    if tool.http:
        yield from place_problems(tool.http, f"{path}.http")
    if tool.python:
        yield from schema_problems(tool.python.parameters, f"{path}.python.parameters")
        if spec.image is None:
            yield f"{path}.python: needs spec.image, which has the function; set it"
    known = [one.name for one in spec.knowledge]
    if tool.knowledge and not known:
        yield f"{path}.knowledge: there is no spec.knowledge to search; add some"
    for at, name in enumerate(tool.knowledge.names if tool.knowledge else ()):
        if name not in known:
            yield f"{path}.knowledge.names[{at}]: there is no {name!r} in spec.knowledge, which has {', '.join(known)}"


def reached_problems(reached: Reached, path: str) -> Iterator[str]:
    for at, header in enumerate(reached.headers):
        yield from exactly_one(f"{path}.headers[{at}]", header, "value", "secret_key_ref")
    for at, network in enumerate(reached.allowed_addresses):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            yield f"{path}.allowedAddresses[{at}]: {error}"


def openapi_problems(name: str, openapi: OpenApiTool, path: str) -> Iterator[str]:
    yield from exactly_one(path, openapi, "inline", "config_map", "uri", "https")
    if re.search(r"[{}?#@]", openapi.url):
        yield f"{path}.url: must be a base without a query, braces, a name and a password; see headers"
    if openapi.uri is not None:
        try:
            local_path(openapi.uri)
        except ValueError as error:
            yield f"{path}.uri: {error}"
    if openapi.inline is not None:
        try:
            read(name, openapi.inline, tuple(openapi.operations), tuple(one.name for one in openapi.headers))
        except DocumentError as error:
            yield f"{path}.inline: {error}"


def place_problems(http: HttpTool, path: str) -> Iterator[str]:
    yield from schema_problems(http.parameters, f"{path}.parameters")
    host = http.url.partition("://")[2].partition("/")[0]
    if "{" in host or "@" in host:
        yield f"{path}.url: the host must be fixed, and without a name and password; see headers"
    try:
        given = json.loads(http.parameters)
        known, needed = given.get("properties") or {}, given.get("required") or ()
    except (ValueError, AttributeError, RecursionError):
        return
    for name in PLACE.findall(http.url):
        if name not in known or name not in needed:
            yield f"{path}.url: {{{name}}} must be one of the properties of parameters that are required"


def schema_problems(text: str, path: str) -> Iterator[str]:
    try:
        given = json.loads(text)
        if not isinstance(given, dict):
            raise SchemaError("must be an object")
        expression(strict(given))
    except SchemaError as error:
        yield f"{path}: {error}"
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        yield f"{path}: is no JSON Schema: {error}"


def one_agent(spec: LLMAppSpec, agent: AppAgent, path: str) -> Iterator[str]:
    known = [one.name for one in spec.tools]
    for at, name in enumerate(agent.tools):
        if name not in known:
            yield f"{path}.tools[{at}]: there is no {name!r} in spec.tools, which has {', '.join(known) or 'none'}"
    for at, name in enumerate(agent.require_approval):
        if name not in agent.tools:
            yield f"{path}.requireApproval[{at}]: {name!r} is none of its tools; correct it"
    if agent.require_approval and spec.sessions is None:
        yield f"{path}.requireApproval: needs spec.sessions, where a call waits for its approval; set it"
    for name in names_in(agent.instructions):
        if name not in spec.prompt.variables:
            yield f"{path}.instructions: {{{{{name}}}}} is no variable of spec.prompt.variables"


def workflow_problems(spec: LLMAppSpec) -> Iterator[str]:
    path, names = "spec.workflow", [one.name for one in spec.agents]
    if not names:
        for field in ("tools", "workflow", "sessions", "limits"):
            if getattr(spec, field):
                yield f"spec.{field}: is of no use without spec.agents; add one, or remove it"
        return
    if spec.workflow is None:
        if len(names) > 1:
            yield f"{path}: is required with {len(names)} agents, to tell how they work together; set it"
        return
    kinds = ("sequential", "parallel", "router", "supervisor", "hand_over")
    if wrong := [*exactly_one(path, spec.workflow, *kinds)]:
        yield from wrong
        return
    members = spec.workflow.members
    yield from (
        f"{path}: there is no agent {name!r}; there are {', '.join(names)}" for name in members if name not in names
    )
    yield from (
        f"{path}: does not name the agent {name!r}, which nobody reaches" for name in names if name not in members
    )
    own = spec.workflow.kind.agents
    yield from named_twice(path, own)
    parallel, supervisor = spec.workflow.parallel, spec.workflow.supervisor
    extra = parallel.combine if parallel else supervisor.agent if supervisor else None
    if extra in own:
        yield f"{path}: {extra!r} can't be one of agents too; remove it there"
    if spec.workflow.parallel:
        asking = [one.name for one in spec.agents if one.require_approval and one.name in own]
        yield from (
            f"{path}.parallel: {name!r} has requireApproval, and nobody can be asked by several" for name in asking
        )


def session_problems(spec: LLMAppSpec) -> Iterator[str]:
    if spec.sessions is None:
        return
    yield from exactly_one("spec.sessions", spec.sessions, "persistent_volume_claim", "postgres")
    if spec.sessions.persistent_volume_claim and spec.replicas > 1:
        yield f"spec.replicas: {spec.replicas} pods can't share a file of SQLite; have one, or use sessions.postgres"
