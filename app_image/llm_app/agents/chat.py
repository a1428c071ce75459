"""Answers of an app that has agents: in the shape of OpenAI's API, with the steps that led to them."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from langgraph.types import Command

from llm_app.agents import graph
from llm_app.agents.run import Run
from llm_app.agents.sessions import Store, opened
from llm_app.chat import Chat
from llm_app.citations import citations
from llm_app.config import Server
from llm_app.figures import Figures
from llm_app.model import Client
from llm_app.prompt import Turn
from llm_app.requests import ChatRequest, RequestError, turns_of
from llm_app.retrieval import Retriever
from llm_app.tools.figures import ToolFigures
from llm_app.tools.toolbox import Toolbox

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "stop")
TAKEN = (*SAMPLING, "user", "stream_options", "session", "approve")
SESSION = re.compile(r"[A-Za-z0-9._-]{8,128}")
MOST_TURNS, MOST_CHARACTERS = 200, 200_000  # of a session
MOST_SUPERSTEPS = 10_000  # LangGraph's own limit raises; ours end with an answer long before


@asynccontextmanager
async def team_chat(config: Server, retriever: Retriever, client: Client, figures: Figures) -> AsyncIterator[TeamChat]:
    assert config.team  # noqa: S101
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(config.team.sessions)) if config.team.sessions else None
        made = TeamChat(config, retriever, client, figures, store)
        stack.push_async_callback(made.toolbox.close)
        await made.toolbox.open()
        yield made


class TeamChat(Chat):
    def __init__(
        self, config: Server, retriever: Retriever, client: Client, figures: Figures, store: Store | None
    ) -> None:
        super().__init__(config, retriever, client, figures)
        assert config.team  # noqa: S101
        self._tool_figures = ToolFigures(figures.registry)
        self.toolbox = Toolbox(config.team.tools, self.retrieve, self._tool_figures)
        self._store = store
        self._graph, self._kept = graph.graph(), graph.graph(store.saver) if store else None
        self._busy: set[str] = set()

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        said, whole = "", {}
        async for piece in self.pieces(request):
            said += "".join(choice["delta"].get("content", "") for choice in piece["choices"])
            whole = piece
        message = {"role": "assistant", "content": said}
        reason = "length" if whole.get("limit") else "stop"
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return {**whole, "object": "chat.completion", "choices": [choice]}

    async def pieces(self, request: ChatRequest) -> AsyncGenerator[dict[str, Any], None]:
        """Steps as they are done, the answer as it is written, and at last what has led to it."""
        extra = checked(request, self._store is not None)
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        sampling = self.config.parameters.model_dump(exclude_none=True, include={"temperature", "top_p"})
        sampling |= {name: extra[name] for name in SAMPLING if extra.get(name) is not None}
        run = Run(
            self.config, self._client, self.toolbox, self._tool_figures, events.put_nowait, sampling,
            in_session=extra.get("session") is not None,
        )  # fmt: skip
        identity = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion.chunk",
                    "created": int(time.time()), "model": self.config.name}  # fmt: skip
        work = asyncio.ensure_future(self._work(request, extra, run))
        work.add_done_callback(lambda _: events.put_nowait(None))
        steps: list[dict[str, Any]] = []
        said = ""
        try:
            while (event := await events.get()) is not None:
                if "step" in event:
                    steps.append(event["step"])
                    yield {**identity, "choices": [], "steps": [event["step"]]}
                else:
                    said += event["piece"]
                    yield {**identity, "choices": [{"index": 0, "delta": {"content": event["piece"]}}]}
            more = await work
        finally:
            work.cancel()  # of a client that has gone away
            run.end()
        if question := more.get("question"):
            yield {**identity, "choices": [{"index": 0, "delta": {"content": question}}]}
            del more["question"]
        usage = {"prompt_tokens": run.read, "completion_tokens": run.written, "total_tokens": run.read + run.written}
        limit = {"limit": run.limit} if run.limit else {}
        yield {**identity, "choices": [], "steps": steps, "citations": citations(run.passages, said), "usage": usage,
               **limit, **more}  # fmt: skip

    async def _work(self, request: ChatRequest, extra: Mapping[str, Any], run: Run) -> dict[str, Any]:
        new = turns_of(request)
        session = extra.get("session")
        if self._kept is None or session is None:
            limit = {"recursion_limit": MOST_SUPERSTEPS}
            return told(await self._graph.ainvoke(graph.fresh(until_user(new)), limit, context=run))
        if session in self._busy:
            raise RequestError(
                409, "session_busy", f"session {session} answers another request; wait for it", "session"
            )
        self._busy.add(session)
        try:
            return {"session": session, **await self._in_session(session, new, extra.get("approve"), run)}
        finally:
            self._busy.discard(session)

    async def _in_session(
        self,
        session: str,
        new: list[Turn],
        approve: bool | None,  # noqa: FBT001
        run: Run,
    ) -> dict[str, Any]:
        assert self._store  # noqa: S101
        assert self._kept  # noqa: S101
        await self._store.sweep()
        place = {"configurable": {"thread_id": session}, "recursion_limit": MOST_SUPERSTEPS}
        before = await self._kept.aget_state(place)
        waits = bool(before.interrupts)
        if waits != (approve is not None):
            said = (
                f"session {session} waits for approve: true or false"
                if waits
                else f"session {session} waits for no approval; leave approve out"
            )
            raise RequestError(409, "approval_required" if waits else "nothing_to_approve", said, "approve")
        if approve is None:
            kept = list(before.values.get("conversation") or ()) if before.values else []
            given: Any = graph.fresh(bounded([*kept, *until_user(after_answer(new) if kept else new)]))
        else:
            given = Command(resume=approve)
        made = await self._kept.ainvoke(given, place, context=run, durability="exit")
        if not made.get("__interrupt__"):
            answered = {"role": "assistant", "content": made["answer"]}
            await self._kept.aupdate_state(
                place,
                {"conversation": bounded([*made["conversation"], answered]), "scratch": [], "reports": []},
                "choose",
            )
            await self._store.prune(session)
        return told(made)


def told(made: Mapping[str, Any]) -> dict[str, Any]:
    """Beside the answer: what waits for an approval."""
    if not (waiting := made.get("__interrupt__")):
        return {}
    call = waiting[0].value
    said = f"I would call {call['tool']}. May I?"
    return {"approval": call, "question": said}


def checked(request: ChatRequest, sessions: bool) -> dict[str, Any]:  # noqa: FBT001
    extra = request.model_extra or {}
    for name, value in extra.items():
        if name not in TAKEN and value is not None:
            raise RequestError(
                400, "unsupported_parameter", f"{name}: an app with agents takes none; leave it out", name
            )
    if request.n not in (None, 1):
        raise RequestError(400, "unsupported_parameter", "n: an app with agents gives one answer; leave it out", "n")
    session, approve = extra.get("session"), extra.get("approve")
    if session is not None and not sessions:
        raise RequestError(400, "unsupported_parameter", "session: this app keeps none (spec.sessions)", "session")
    if session is not None and not (isinstance(session, str) and SESSION.fullmatch(session)):
        raise RequestError(400, "invalid_value", "session: must be 8 to 128 letters, digits and . _ -", "session")
    if approve is not None and (not isinstance(approve, bool) or session is None):
        raise RequestError(400, "invalid_value", "approve: must be true or false, of a session", "approve")
    return dict(extra)


def until_user(turns: list[Turn]) -> list[Turn]:
    """Without what is about the client's own tools, up to the user's newest message."""
    kept = [one for one in turns if one["role"] in ("user", "assistant") and one.get("content")]
    at = max((number for number, one in enumerate(kept) if one["role"] == "user"), default=-1)
    return kept[: at + 1]


def after_answer(turns: list[Turn]) -> list[Turn]:
    """What is new: a client may send the whole conversation, which the session has already."""
    at = max((number for number, one in enumerate(turns) if one["role"] == "assistant"), default=-1)
    return turns[at + 1 :]


def bounded(turns: list[Turn]) -> list[Turn]:
    kept, room = turns[-MOST_TURNS:], MOST_CHARACTERS
    for at in range(len(kept) - 1, -1, -1):
        room -= len(str(kept[at].get("content")))
        if room < 0 and at < len(kept) - 1:
            return kept[at + 1 :]
    return kept
