"""What holds of an index wherever it is kept: in a folder, in PostgreSQL, in Chroma. On real servers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llm_app import embedding, pgvector_index
from llm_app.away import StoreError
from llm_app.config import ChromaServer, Chunking, Document, IndexConfig, IndexSource, Knowledge, Retrieval, Store
from llm_app.figures import Figures
from llm_app.index import make, run
from llm_app.opening import opened
from llm_app.retrieval import Found, Retriever
from llm_trainer.protocol import ExitCode
from tests.app.embedder import EmbeddingServer, embedding_server
from tests.app.store_servers import chroma_server, postgres_server

TEXTS = ("Oil the pump every 40 hours.", "The valve is red.", "保証の期間は三年です。", "A \x00 in \ud7ff a text 😀")
CODE = "import pathlib, sys; from llm_app.index import run; sys.exit(run(pathlib.Path(sys.argv[1]))[0])"


@dataclass
class Kept:
    """Where the indexes of one app are."""

    store: Store | None
    root: Path
    embedder: EmbeddingServer = field(default_factory=EmbeddingServer)

    def config(self, revision: str, *texts: str, vectors: bool = True, **more: Any) -> IndexConfig:
        documents = [
            Document(title=f"t{at}", text=text, metadata={"n": str(at), "title": f"m{at}"})
            for at, text in enumerate(texts or TEXTS)
        ]
        given: dict[str, Any] = {"store": self.store, **more}
        return IndexConfig(
            knowledge="manual", revision=revision, folder="" if given["store"] else str(self.root),
            chunking=Chunking(size=100, overlap=0), embedding=self.embedder.settings() if vectors else None,
            sources=[IndexSource(name="notes", documents=documents)], **given,
        )  # fmt: skip

    @asynccontextmanager
    async def serving(self, revision: str, *, vectors: bool = True, **retrieval: Any) -> AsyncIterator[Retriever]:
        settings = Knowledge(
            name="manual", revision=revision, folder="" if self.store else str(self.root / revision),
            retrieval=Retrieval(**retrieval), store=self.store,
            embedding=self.embedder.settings() if vectors else None,
        )  # fmt: skip
        async with opened([settings], Figures()) as retriever:
            yield retriever

    def found(self, revision: str, question: str, where: Any = None, **given: Any) -> Found:
        async def go() -> Found:
            async with self.serving(revision, **given) as retriever:
                return await retriever.search(question, where=where)

        return asyncio.run(go())

    def texts(self, revision: str, question: str, **given: Any) -> list[str]:
        return [one.text for one in self.found(revision, question, **given).passages]

    def has(self, revision: str) -> bool:
        try:
            self.found(revision, "x", vectors=False)
        except (StoreError, OSError):
            return False
        return True


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("pg")) as url:
        yield url


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chroma_server(tmp_path_factory.mktemp("chroma")) as server:
        yield server.url


@pytest.fixture(params=["folder", "pgvector", "chroma"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    owner = tmp_path.parent.name + tmp_path.name  # of one test alone
    store = None
    if request.param == "pgvector":
        monkeypatch.setenv("LLM_APP_STORE_URL_MANUAL", request.getfixturevalue("postgres"))
        monkeypatch.setattr(pgvector_index, "EXACT", 2)  # an approximate index too
        store = Store(schema_name="apps", owner=owner)
    elif request.param == "chroma":
        url = request.getfixturevalue("chroma")
        server = ChromaServer(url=url, tenant="default_tenant", database="default_database")
        store = Store(owner=owner, chroma=server)
    monkeypatch.setattr(embedding, "FIRST_WAIT", 0.01)
    with embedding_server() as embedder:
        yield Kept(store, tmp_path / "index", embedder)


def test_every_store_finds_the_same(kept: Kept, tmp_path: Path) -> None:
    """As a folder, whose search is the plainest."""
    told = make(kept.config("one"))
    assert (told["documents"], told["chunks"], told["dimensions"], told["embedded"]) == (4, 4, 64, 4)
    assert make(kept.config("one")) == {"documents": 4, "chunks": 4, "dimensions": 64}, "a second pod of the Job"
    plain = Kept(None, tmp_path / "plain", kept.embedder)
    make(plain.config("one"))
    for question in ("oil", "crimson", "保証は何年?", "lubricate the valve", "x' OR 1=1 --", "😀", "nothing of it"):
        for mode in ("keyword", "dense", "hybrid"):
            for where in ({}, {"n": "1"}, {"n": "1", "title": "m1"}, {"n": "1", "title": "m2"}, {"new": ""}):
                here, there = (one.found("one", question, where, mode=mode).passages for one in (kept, plain))
                assert [one.title for one in here] == [one.title for one in there], (question, mode, where)
                assert [one.score for one in here] == pytest.approx([one.score for one in there], abs=1e-4)
                assert [(one.text.replace("\0", ""), one.source, dict(one.metadata), one.revision) for one in here] == [
                    (one.text.replace("\0", ""), one.source, dict(one.metadata), one.revision) for one in there
                ]


def test_bounds_of_what_is_found(kept: Kept) -> None:
    make(kept.config("one", *(f"Part {at} is oiled." for at in range(30))))
    assert len(kept.texts("one", "oiled", mode="keyword", top_k=50)) == 30
    assert len(kept.texts("one", "oiled", mode="dense", top_k=50)) == 30
    assert len(kept.texts("one", "oiled", mode="hybrid", top_k=7)) == 7
    assert kept.texts("one", "Part 3", mode="keyword", top_k=1) == ["Part 3 is oiled."]
    assert kept.texts("one", "oiled", mode="keyword", minimum_score=1000) == []
    assert kept.texts("one", "nowhere", mode="dense", minimum_similarity=0.99) == []


def test_what_has_not_changed_is_neither_embedded_nor_kept_twice(kept: Kept) -> None:
    make(kept.config("one"))
    kept.embedder.asked.clear()
    assert make(kept.config("two", keep=["one"], used="one"))["same"] == "one"
    assert kept.embedder.asked == [embedding.PROBE]
    told = make(kept.config("three", TEXTS[0], "new", keep=["two"], used="two"))
    assert (told["embedded"], told.get("same")) == (1, None)
    assert kept.texts("two", "crimson", mode="dense", top_k=1) == [TEXTS[1]], "two leads to what one has"
    make(kept.config("four", "other", keep=["three"], used="three"))
    assert [kept.has(name) for name in ("one", "two", "three", "four")] == [False, False, True, True]


def test_another_model_behind_the_name_is_asked_for_all(kept: Kept) -> None:
    make(kept.config("one"))
    kept.embedder.seed = "two"
    found = kept.found("one", "oil")
    assert "another embedding model is served" in found.problems[0]
    assert found.passages[0].text == TEXTS[0], "by words"
    kept.embedder.dimensions = 32
    assert "another embedding model is served" in kept.found("one", "oil").problems[0], "also of other dimensions"
    told = make(kept.config("two", keep=["one"], used="one"))
    assert (told.get("same"), told["embedded"], told["dimensions"]) == (None, 4, 32)
    assert kept.texts("two", "crimson", mode="dense", top_k=1) == [TEXTS[1]]


def test_without_vectors(kept: Kept) -> None:
    assert "dimensions" not in make(kept.config("one", vectors=False))
    assert kept.texts("one", "red valve", vectors=False, top_k=1) == [TEXTS[1]]
    assert not kept.embedder.asked


def test_several_apps_share_a_store(kept: Kept) -> None:
    """Also with the same names."""
    make(kept.config("one", vectors=False))
    own = kept.store.model_copy(update={"owner": "another"}) if kept.store else None
    other = Kept(own, kept.root.parent / "another", kept.embedder)
    make(other.config("one", "the pump of another app", vectors=False))
    make(kept.config("two", "new", vectors=False))
    assert kept.texts("two", "new pump", vectors=False) == ["new"]
    assert other.texts("one", "new pump", vectors=False) == ["the pump of another app"]
    assert not kept.has("one")


def test_a_killed_job_leaves_the_old_revision_whole(kept: Kept, tmp_path: Path) -> None:
    make(kept.config("old"))
    file = tmp_path / "index.json"
    many = [f"Part {at} is oiled." for at in range(1000)]
    file.write_text(kept.config("new", *many, keep=["old"], used="old").model_dump_json(by_alias=True))
    for after in (0.1, 0.3):
        kept.embedder.asked.clear()
        process = subprocess.Popen([sys.executable, "-c", CODE, str(file)])
        while process.poll() is None and len(kept.embedder.asked) < 900:
            time.sleep(0.02)
        time.sleep(after)
        process.kill()
        process.wait()
        assert kept.texts("old", "crimson", mode="dense", top_k=1) == [TEXTS[1]]
        if kept.has("new"):
            assert [one.title for one in kept.found("new", "Part 999", top_k=1).passages] == ["t999"]
    code, word = run(file)
    assert (code, word.get("chunks")) == (ExitCode.SUCCEEDED, 1000), word
    assert [one.title for one in kept.found("new", "Part 999", top_k=1).passages] == ["t999"]
