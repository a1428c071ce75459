"""Tools of an app's agents, as a user writes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from llm_app.config import HttpsUrl
from llm_app.team import Bounds, Method, ToolName
from llm_operator.api.common import Spec
from llm_operator.api.serving import ConfigMapKey, SecretKey
from llm_trainer.config import Name, Uri

ToolUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048)]
Cidr = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$", max_length=64)]
Parameters = Annotated[str, StringConstraints(min_length=2, max_length=8192)]
REMOTE_NAME = r"^[A-Za-z0-9_.-]+$"


class ToolHeader(Spec):
    """Exactly one of value and secretKeyRef."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9-]+$", description="Of the header.")
    value: str | None = Field(default=None, max_length=1024, pattern=r"^[\x20-\x7e]*$", description="Its value.")
    secret_key_ref: SecretKey | None = Field(default=None, description="Where its value is.")


class Reached(Spec):
    url: ToolUrl = Field(description="Of the server; redirects are not followed.")
    headers: list[ToolHeader] = Field(default_factory=list, max_length=8, description="Sent with each request.")
    allowed_addresses: list[Cidr] = Field(
        default_factory=list,
        max_length=16,
        description="Networks, such as 10.96.0.0/12, that it may reach beside public addresses. Default: none.",
    )


class HttpTool(Reached):
    """One request. {name} in url is an argument; the others are its query, or of POST, PUT and PATCH a JSON body."""

    method: Method = Field(default="GET", description="Of the request.")
    parameters: Parameters = Field(description="JSON Schema of an object, whose properties are the arguments.")


class OpenApiTool(Reached):
    """Operations of an OpenAPI document, each called NAME_OPERATIONID. Exactly one of inline, configMap, uri and https.

    url is where they are; what the document says of servers is not followed, as headers may be secret.
    """

    operations: list[Annotated[str, StringConstraints(min_length=1, max_length=253)]] = Field(
        default_factory=list, max_length=32, description="By operationId. Default: all, if there are 32 at most."
    )
    inline: str | None = Field(
        default=None, min_length=2, max_length=65_536, description="The document itself, in YAML or JSON."
    )
    config_map: ConfigMapKey | None = Field(default=None, description="Where it is; a change of it is a rollout.")
    uri: Uri | None = Field(default=None, description="A file of a claim, pvc://CLAIM/PATH, read when a pod starts.")
    https: HttpsUrl | None = Field(
        default=None, description="Where it is, without the headers; read when a pod starts."
    )


class McpTool(Reached):
    """The tools of an MCP server that speaks streamable HTTP, each called NAME_TOOL."""

    tools: list[Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=REMOTE_NAME)]] = Field(
        default_factory=list, max_length=64, description="Those that are used. Default: all."
    )


class PythonTool(Spec):
    """A function of spec.image, called with the arguments by name in the server's process."""

    entry_point: str = Field(
        max_length=253, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$", description="MODULE:FUNCTION."
    )
    parameters: Parameters = Field(description="JSON Schema of an object, whose properties are the arguments.")


class KnowledgeTool(Spec):
    names: list[Name] = Field(default_factory=list, max_length=8, description="Of spec.knowledge. Default: all.")
    top_k: int | None = Field(default=None, ge=1, le=50, description="Chunks at most. Default: that of each.")


class AppTool(Bounds, Spec):
    """Exactly one of http, openapi, mcp, python and knowledge."""

    name: ToolName = Field(description="By which the model calls it.")
    description: str = Field(default="", max_length=1024, description="What it does, for the model.")
    http: HttpTool | None = Field(default=None, description="A request to an HTTP server.")
    openapi: OpenApiTool | None = Field(default=None, description="Operations of an OpenAPI document.")
    mcp: McpTool | None = Field(default=None, description="The tools of an MCP server.")
    python: PythonTool | None = Field(default=None, description="A function of spec.image.")
    knowledge: KnowledgeTool | None = Field(default=None, description="A search in spec.knowledge.")

    @property
    def reached(self) -> Reached | None:
        """What it asks over the network, if it does."""
        return self.http or self.openapi or self.mcp
