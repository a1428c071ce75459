"""From a client's request to what the model is asked, and from its answer to the client's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from llm_app.away import StoreError
from llm_app.citations import citations
from llm_app.config import Server
from llm_app.figures import Figures
from llm_app.model import Client
from llm_app.prompt import Assembled, PromptTooLongError, assemble, question_of
from llm_app.requests import ChatRequest, RequestError, RetrieveRequest, turns_of, upstream
from llm_app.retrieval import Found, Retriever
from llm_app.tracing import span

Told = dict[str, list[str]]  # "problems": why some knowledge was searched less well than wanted


class Chat:
    """One configuration with its indexes: all answers of a pod are of these and no other."""

    def __init__(self, config: Server, retriever: Retriever, client: Client, figures: Figures) -> None:
        self.config, self.retriever, self._client, self._figures = config, retriever, client, figures

    async def search(self, request: RetrieveRequest) -> Found:
        """Raises RequestError."""
        known = self.retriever.names
        if unknown := [name for name in request.knowledge if name not in known]:
            said = f"knowledge: there is no {unknown[0]!r}; there are {', '.join(known) or 'none'}"
            raise RequestError(404, "not_found", said, "knowledge")
        return await self.retrieve(request.query, request.knowledge, request.top_k, request.where)

    async def retrieve(
        self,
        query: str,
        names: Sequence[str] = (),
        most: int | None = None,
        where: Mapping[str, str] | None = None,
    ) -> Found:
        """Raises RequestError."""
        try:
            with span("retrieve", llm_app__knowledge=[*(names or self.retriever.names)]) as told:
                found = await self.retriever.search(query, names, most, where)
                told.set_attribute("llm_app.passages", len(found.passages))
                return found
        except StoreError as error:
            raise RequestError(503, "knowledge_unavailable", f"knowledge can't be searched: {error}") from None

    async def prepared(self, request: ChatRequest) -> tuple[dict[str, Any], Assembled, Told]:
        """What the model is asked, and what of documents it is shown. Raises RequestError."""
        turns = turns_of(request)
        found = await self.retrieve(question_of(turns)) if self.config.knowledge else Found()
        context = self.config.model.context_tokens
        budget = None if context is None else context - self.config.parameters.max_tokens
        try:
            made = assemble(self.config.prompt, turns, found.passages, budget)
        except PromptTooLongError as error:
            raise RequestError(400, "context_length_exceeded", str(error), "messages") from None
        self._figures.passages.inc(len(made.passages))
        self._figures.forgotten.inc(made.forgotten)
        problems: Told = {"problems": found.problems} if found.problems else {}
        return upstream(request, self.config, made.turns), made, problems

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        body, made, problems = await self.prepared(request)
        found = await self._client.answer(body)
        self._count(found)
        said = "\n".join(text_in(choice, "message") for choice in found.get("choices") or ())
        return {**found, "model": self.config.name, "citations": citations(made.passages, said), **problems}

    async def pieces(self, request: ChatRequest) -> AsyncGenerator[dict[str, Any], None]:
        """As they come; what documents said stands in a last one without a choice."""
        body, made, problems = await self.prepared(request)
        said: list[str] = []
        identity: dict[str, Any] = {}
        async with aclosing(self._client.pieces(body)) as pieces:  # a client that goes away ends the model's work
            async for piece in pieces:
                said += [text_in(choice, "delta") for choice in piece.get("choices") or ()]
                identity = {field: piece[field] for field in ("id", "object", "created") if field in piece}
                self._count(piece)
                yield {**piece, "model": self.config.name}
        yield {
            **identity,
            "model": self.config.name,
            "choices": [],
            "citations": citations(made.passages, "".join(said)),
            **problems,
        }

    def _count(self, told: Mapping[str, Any]) -> None:
        usage = told.get("usage") or {}
        for kind in ("prompt_tokens", "completion_tokens"):
            if isinstance(count := usage.get(kind), int) and count > 0:
                self._figures.tokens.labels(kind.removesuffix("_tokens")).inc(count)


def text_in(choice: Mapping[str, Any], field: str) -> str:
    content = (choice.get(field) or {}).get("content")
    return content if isinstance(content, str) else ""
