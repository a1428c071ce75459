"""Agents of an app and where their sessions are kept, as a user writes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llm_app.team import ToolName
from llm_operator.api.common import ClaimReference, Spec
from llm_operator.api.serving import SecretKey
from llm_trainer.config import Name

MOST_AGENTS, MOST_TOOLS = 16, 32


class AppAgent(Spec):
    """Asks the model again and again: for a call of a tool, or for the answer."""

    name: Name = Field(description="Its name among them.")
    description: str = Field(default="", max_length=1024, description="What it is for; others choose it by this.")
    instructions: str = Field(default="", max_length=16_384, description="Template, told after spec.prompt.system.")
    tools: Annotated[list[ToolName], Field(max_length=MOST_TOOLS)] = Field(
        default_factory=list, description="Of spec.tools."
    )
    require_approval: Annotated[list[ToolName], Field(max_length=MOST_TOOLS)] = Field(
        default_factory=list, description="Those of its tools for which the user is asked first."
    )
    steps: int = Field(default=6, ge=1, le=64, description="Calls of tools in a turn, then it answers.")


class PostgresSessions(Spec):
    secret_key_ref: SecretKey = Field(description="Where its URL is, postgresql://USER:PASSWORD@HOST/DATABASE.")
    port: int = Field(default=5432, ge=1, le=65_535, description="For the NetworkPolicy.")


class AppSessions(Spec):
    """Conversations that the app keeps. Exactly one of persistentVolumeClaim and postgres."""

    persistent_volume_claim: ClaimReference | None = Field(
        default=None, description="A file of SQLite in it; the app then has one pod."
    )
    postgres: PostgresSessions | None = Field(default=None, description="A database; any number of pods.")
    idle_seconds: int = Field(
        default=604_800, ge=60, le=31_536_000, description="A session that nobody has used for so long is removed."
    )
    most: int = Field(default=10_000, ge=1, le=1_000_000, description="Sessions; the oldest are removed.")
