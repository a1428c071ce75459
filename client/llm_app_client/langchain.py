"""An LLMApp for LangChain: ``ChatOpenAI(**settings(app))`` and ``retriever(app)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from llm_app_client import App, retrieve


def settings(app: App) -> dict[str, Any]:
    """Arguments of langchain_openai.ChatOpenAI. A system message is refused: what the system says is the app's own."""
    return {"model": app.name, "base_url": app.url, "api_key": app.key or "none"}


class AppRetriever(BaseRetriever):
    """``asked``: of llm_app_client.retrieve."""

    app: App
    asked: dict[str, Any]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = retrieve(self.app, query, **self.asked)
        return [Document(page_content=one.text, metadata={**one.metadata, "score": one.score}) for one in found]


def retriever(
    app: App, *, knowledge: Sequence[str] = (), top_k: int | None = None, where: Mapping[str, str] | None = None
) -> BaseRetriever:
    return AppRetriever(app=app, asked={"knowledge": knowledge, "top_k": top_k, "where": where})
