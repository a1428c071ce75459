"""The dashboard of an app, of a real server with agents, tools and knowledge, by a real Prometheus.

The main job's app has neither agents nor embeddings; of this one every panel has something to show.
"""

from __future__ import annotations

import asyncio
import os
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_app import embedding
from llm_app.config import Chunking, Document, IndexConfig, IndexSource, Knowledge, Retrieval
from llm_app.index import make
from llm_app.team import Search, Tool
from tests.app.conftest import TEXTS, App, Start, start
from tests.app.embedder import EmbeddingServer, embedding_server
from tests.app.test_agents import ANSWER, CALL, http, team, weather
from tests.cluster.settings import REPOSITORY
from tests.monitoring import panels
from tests.monitoring.scraping import Prometheus, prometheus_server

__all__ = ["start"]

pytestmark = pytest.mark.release  # a rate needs some twenty seconds of questions
ALERTS = REPOSITORY / "charts" / "llm-operator" / "alerts.yaml"
ROUNDS = 12
OF_APP = {"namespace": "team", "app": "help"}
LOOK = {"tool": "manual", "arguments": {"query": "oil the pump"}}


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setattr(embedding, "FIRST_WAIT", 0.01)
    with embedding_server() as made:
        yield made


def knowledge(folder: Path, embedder: EmbeddingServer) -> Knowledge:
    documents = [Document(title=title, text=text) for title, text in TEXTS.items()]
    make(IndexConfig(
        knowledge="manual", revision="rev1", folder=str(folder), chunking=Chunking(), embedding=embedder.settings(),
        sources=[IndexSource(name="notes", documents=documents)],
    ))  # fmt: skip
    return Knowledge(name="manual", revision="rev1", folder=str(folder / "rev1"), retrieval=Retrieval(top_k=2),
                     embedding=embedder.settings())  # fmt: skip


async def talk(app: App, embedder: EmbeddingServer) -> None:
    """All that can happen: a tool and a search, a limit, a search by words alone, answers that break off and fail."""
    for number in range(ROUNDS):
        app.vllm.decisions = [CALL, LOOK, ANSWER]
        embedder.fails = [(503, "")] * 20 if number % 3 == 2 else []
        await app.ask("Weather?")
        app.vllm.decisions = [CALL]
        await app.ask("For ever?")
        app.vllm.decisions = [ANSWER]
        await app.stream("How often?")
        app.vllm.fails = (500, "oops") if number % 4 == 3 else None
        await app.ask("And now?")
        app.vllm.fails = None
        await asyncio.sleep(2)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_every_panel_of_an_app_answers(
    start: Start, embedder: EmbeddingServer, prometheus: Path, tmp_path: Path
) -> None:
    """LLM_OPERATOR_DRAW names a folder for a picture of them."""
    base = await asyncio.to_thread(knowledge, tmp_path / "index", embedder)
    async with weather(wait=0.1) as (url, _):
        tools = [http(url), Tool(name="manual", knowledge=Search())]
        app = await start(team=team(*tools, agent={"steps": 4}), bases=[base])
        address = urllib.parse.urlsplit(app.url).netloc
        scraped = {
            "job_name": "apps",
            "static_configs": [{"targets": [address], "labels": {**OF_APP, "pod": "help-0"}}],
        }
        began = time.time()
        with prometheus_server(prometheus, tmp_path, [scraped], ALERTS) as server:
            await talk(app, embedder)
            found = await asyncio.to_thread(asked, server, began)
    if folder := os.environ.get("LLM_OPERATOR_DRAW"):
        panels.draw(found, Path(folder))
    assert len(found) > 20
    silent = [one.title for one in found if not one.series]
    assert silent == []


def asked(server: Prometheus, began: float) -> list[panels.Answer]:
    return panels.answers(server, {"app": OF_APP}, began, time.time())
