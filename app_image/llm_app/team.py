"""What a server is told of its agents: tools, who works with whom, limits, sessions. The operator writes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from llm_trainer.config import Name, Settings

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Schema = dict[str, JsonValue]
# What a model writes between quotes, and what metrics have as labels.
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_-]*$", min_length=1, max_length=64)]
SECRET = "LLM_APP_TOOL_SECRET_"  # noqa: S105 -- the beginning of names of variables
SESSIONS_URL = "LLM_APP_SESSIONS_URL"
SESSIONS_FOLDER = "/volumes/.sessions"  # no claim's name begins so
DOCUMENT_FILE = "document"  # of OpenAPI, from a ConfigMap
RESERVED = "answer"  # a tool of this name could not be told from the answer


class Limits(Settings):
    """Of one request, by all agents together. At each of them an answer is given with what there is."""

    turns: int = Field(default=8, ge=1, le=64, description="Of agents, where several take turns.")
    tokens: int = Field(default=100_000, ge=100, le=100_000_000, description="That the model reads and writes.")
    seconds: int = Field(default=300, ge=1, le=3600, description="Until the answer is begun.")


class Bounds(Settings):
    """What a tool may take."""

    timeout_seconds: int = Field(default=10, ge=1, le=600, description="Until it has answered.")
    answer_characters: int = Field(
        default=8192, ge=64, le=262_144, description="Of an answer that the model is shown; the rest is cut."
    )


class Header(Settings):
    """``variable``: of the environment, where its value stands if it is a secret."""

    name: str
    value: str = ""
    variable: str = ""


class Http(Settings):
    url: str
    method: Method = "GET"
    headers: list[Header] = Field(default_factory=list)
    parameters: Schema
    allowed_addresses: list[str] = Field(default_factory=list)


class OpenApi(Settings):
    """``url``: where its operations are; what a document says of servers is not followed, as headers may be secret.

    The document stands here, in the file ``path``, or at ``location`` in the network. ``digest``: of the file's content
    as the operator knew it, so that another one is another configuration.
    """

    url: str
    headers: list[Header] = Field(default_factory=list)
    operations: list[str] = Field(default_factory=list)
    allowed_addresses: list[str] = Field(default_factory=list)
    document: str = ""
    path: str = ""
    digest: str = ""
    location: str = ""


class Mcp(Settings):
    url: str
    headers: list[Header] = Field(default_factory=list)
    tools: list[str] = Field(default_factory=list)
    allowed_addresses: list[str] = Field(default_factory=list)


class PythonFunction(Settings):
    entry_point: str
    parameters: Schema


class Search(Settings):
    """``names`` of knowledge bases, all that there are if it is empty."""

    names: list[Name] = Field(default_factory=list)
    top_k: int | None = None


class Tool(Settings):
    """Exactly one of ``http``, ``openapi``, ``mcp``, ``python`` and ``knowledge``."""

    name: ToolName
    description: str = ""
    bounds: Bounds = Field(default_factory=Bounds)
    http: Http | None = None
    openapi: OpenApi | None = None
    mcp: Mcp | None = None
    python: PythonFunction | None = None
    knowledge: Search | None = None


class Agent(Settings):
    """``instructions`` are rendered already."""

    name: Name
    description: str = ""
    instructions: str = ""
    tools: list[ToolName] = Field(default_factory=list)
    require_approval: list[ToolName] = Field(default_factory=list)
    steps: int = 6


Members = Annotated[list[Name], Field(min_length=1, max_length=16)]


class Sequential(Settings):
    """One after the other; each reads what those before it have said, and the last one answers."""

    agents: Members = Field(description="In this order.")


class Parallel(Settings):
    """All at the same time; one more reads what they have said, and answers."""

    agents: Members = Field(description="Who work at the same time.")
    combine: Name = Field(description="The agent that answers.")


class Router(Settings):
    """The model chooses, by their descriptions, the one that answers."""

    agents: Members = Field(description="Of whom one is chosen.")


class Supervisor(Settings):
    """One gives tasks to others until it has what it needs, then it answers."""

    agent: Name = Field(description="Who gives tasks and answers.")
    agents: Members = Field(description="Who are given tasks.")


class HandOver(Settings):
    """One begins; whoever has the conversation answers, or hands it to another."""

    agents: Members = Field(description="Who may have the conversation; the first of them begins.")


class Workflow(Settings):
    """How several agents work together. Exactly one of its fields."""

    sequential: Sequential | None = Field(default=None, description="One after the other.")
    parallel: Parallel | None = Field(default=None, description="All at the same time.")
    router: Router | None = Field(default=None, description="One that the model chooses.")
    supervisor: Supervisor | None = Field(default=None, description="One gives tasks to others.")
    hand_over: HandOver | None = Field(default=None, description="One hands the conversation to another.")

    @property
    def kind(self) -> Sequential | Parallel | Router | Supervisor | HandOver:
        """The one that is set."""
        found = self.sequential or self.parallel or self.router or self.supervisor or self.hand_over
        assert found  # noqa: S101 -- validated
        return found

    @property
    def members(self) -> list[str]:
        """All agents that it names, each once."""
        more = [self.parallel.combine] if self.parallel else [self.supervisor.agent] if self.supervisor else []
        return list(dict.fromkeys([*self.kind.agents, *more]))


class Sessions(Settings):
    """Kept in a file of the claim; with ``postgres`` in the database that SESSIONS_URL names."""

    postgres: bool = False
    folder: str = ""
    idle_seconds: int = 604_800
    most: int = 10_000


class Team(Settings):
    """``workflow`` None: there is one agent."""

    tools: list[Tool] = Field(default_factory=list)
    agents: Annotated[list[Agent], Field(min_length=1)]
    workflow: Workflow | None = None
    limits: Limits = Field(default_factory=Limits)
    sessions: Sessions | None = None
