"""One request to agents: what it may still take, what it has taken, and the model's part in it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import Span, use_span

from llm_app import agent_prompt as prompts
from llm_app.config import Server
from llm_app.model import Client
from llm_app.prompt import Passage, PromptTooLongError, Turn, render
from llm_app.requests import RequestError
from llm_app.team import Agent, Team
from llm_app.tools.base import Offer
from llm_app.tools.figures import ToolFigures
from llm_app.tools.toolbox import Called, Toolbox
from llm_app.tracing import TRACER, dotted, turn_of

GRACE_SECONDS = 60.0  # for the answer that a limit asks for
NOTHING = "I could not finish: the limit of {} was reached."


@dataclass
class Run:
    """``emit`` is given each step and each piece of the answer. Nothing of it outlives the request."""

    config: Server
    client: Client
    toolbox: Toolbox
    figures: ToolFigures
    emit: Callable[[dict[str, Any]], None]
    sampling: dict[str, Any] = field(default_factory=dict)
    in_session: bool = False  # a call can wait for an approval
    passages: list[Passage] = field(default_factory=list)
    reports: list[dict[str, str]] = field(default_factory=list)
    read: int = 0
    written: int = 0
    limit: str = ""
    began: float = field(default_factory=time.monotonic)
    turn: Span | None = None  # whose turn it is, if agents take turns

    @property
    def team(self) -> Team:
        assert self.config.team  # noqa: S101
        return self.config.team

    def agent(self, name: str) -> Agent:
        return next(one for one in self.team.agents if one.name == name)

    @property
    def decision_tokens(self) -> int:
        """At most, of what an agent decides: a call, or that it answers."""
        return prompts.decision_tokens(self.config.model.context_tokens)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.team.limits.seconds - (time.monotonic() - self.began)

    def reached(self) -> str:
        if self.left <= 0:
            return self.stop("seconds")
        return self.stop("tokens") if self.read + self.written >= self.team.limits.tokens else ""

    def stop(self, limit: str) -> str:
        if not self.limit:
            self.figures.limits.labels(limit).inc()
        self.limit = self.limit or limit
        return limit

    def system(self, agent: Agent, offers: list[Offer], others: list[str]) -> str:
        own = render(self.config.prompt.system, self.config.prompt.variables)
        return prompts.system(own, agent, offers, [self.agent(name) for name in others])

    def sent(self, said: str, state: dict[str, Any], last: str, answer: int) -> list[Turn]:
        context = self.config.model.context_tokens
        budget = None if context is None else context - answer
        try:
            return prompts.turns(said, state["conversation"], state["reports"], state["scratch"], last, budget)
        except PromptTooLongError as error:
            raise RequestError(400, "context_length_exceeded", str(error), "messages") from None

    def begin(self, agent: str) -> None:
        """A turn of this agent; the one before it is over."""
        self.end()
        self.turn = TRACER.start_span(f"invoke_agent {agent}", attributes=dotted(turn_of(agent)))

    def end(self) -> None:
        if self.turn:
            self.turn.end()
        self.turn = None

    def within(self) -> AbstractContextManager[object]:
        """What an agent does is a part of its turn."""
        if self.turn is None:
            return nullcontext()
        return use_span(self.turn, record_exception=False, set_status_on_exception=False)

    async def decide(self, agent: str, turns: list[Turn], expression: str) -> dict[str, Any] | None:
        """None: a limit was reached, or what was written is no JSON."""
        body = {"model": self.config.model.name, "messages": turns, "max_tokens": self.decision_tokens, **self.sampling}
        body["structured_outputs"] = {"regex": expression}
        try:
            async with asyncio.timeout(max(self.left, 0.01)):
                found = await self.client.answer(body)
        except TimeoutError:
            self.stop("seconds")
            return None
        self.count(agent, found.get("usage"))
        try:
            made = json.loads(found["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError):
            return None
        return made if isinstance(made, dict) else None

    async def answer(self, agent: str, turns: list[Turn], *, final: bool) -> str:
        """Of the whole request, if it is ``final``: its pieces go to the client as they come."""
        body = {"model": self.config.model.name, "messages": turns, **self.sampling, "stream": True}
        body |= {"max_tokens": self.config.parameters.max_tokens, "stream_options": {"include_usage": True}}
        if final and self.config.prompt.output_schema is not None:
            schema = {"name": "answer", "schema": self.config.prompt.output_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        said = ""
        try:
            async with asyncio.timeout(max(self.left, 0) + GRACE_SECONDS), aclosing(self.client.pieces(body)) as pieces:
                async for piece in pieces:
                    self.count(agent, piece.get("usage"))
                    for choice in piece.get("choices") or ():
                        text = (choice.get("delta") or {}).get("content") or ""
                        said += text
                        if final and text:
                            self.emit({"piece": text})
        except TimeoutError:
            self.stop("seconds")
            if not said:
                said = NOTHING.format("seconds")
                if final:
                    self.emit({"piece": said})
        return said

    def count(self, agent: str, usage: Any) -> None:
        for kind, name in (("prompt_tokens", "prompt"), ("completion_tokens", "completion")):
            count = usage.get(kind) if isinstance(usage, dict) else None
            if isinstance(count, int) and count > 0:
                self.figures.tokens.labels(agent, name).inc(count)
                self.read += count if name == "prompt" else 0
                self.written += count if name == "completion" else 0

    def called(self, agent: str, call: dict[str, Any], found: Called) -> str:
        """What the model is told of a call; the client is told too."""
        first = len(self.passages) + 1
        self.passages += found.passages
        self.emit({"step": {"agent": agent, "tool": call["tool"], "arguments": call.get("arguments") or {},
                            "outcome": found.outcome, "seconds": round(found.seconds, 3)}})  # fmt: skip
        return prompts.result(call["tool"], found.text, found.passages, first)
