"""An LLMApp for LlamaIndex: ``OpenAILike(**settings(app))`` and ``retriever(app)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llm_app_client import App, retrieve


def settings(app: App) -> dict[str, Any]:
    """Arguments of OpenAILike. A system message is refused: what the system says is the app's own."""
    return {"model": app.name, "api_base": app.url, "api_key": app.key or "none", "is_chat_model": True}


class AppRetriever(BaseRetriever):  # type: ignore[misc]  # of what the environment has no types of
    """``asked``: of llm_app_client.retrieve."""

    def __init__(self, app: App, asked: dict[str, Any]) -> None:
        super().__init__()
        self._app, self._asked = app, asked

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = retrieve(self._app, query_bundle.query_str, **self._asked)
        return [NodeWithScore(node=TextNode(text=one.text, metadata=one.metadata), score=one.score) for one in found]


def retriever(
    app: App, *, knowledge: Sequence[str] = (), top_k: int | None = None, where: Mapping[str, str] | None = None
) -> BaseRetriever:
    return AppRetriever(app, {"knowledge": knowledge, "top_k": top_k, "where": where})
