"""Indexes in a real PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from llm_app import embedding
from llm_app.away import StoreError
from llm_app.config import Chunking, Document, IndexConfig, IndexSource, Knowledge, Retrieval, Store
from llm_app.database import Place, told_clearly
from llm_app.figures import Figures
from llm_app.index import make, run
from llm_app.opening import opened
from llm_app.retrieval import Retriever
from llm_trainer.protocol import ExitCode
from tests.app.conftest import Start
from tests.app.embedder import EmbeddingServer, embedding_server
from tests.app.store_servers import postgres_server

TEXTS = ("Oil the pump every 40 hours.", "The valve is red.", "保証の期間は三年です。")
OWNER, VARIABLE = "uid-1", "LLM_APP_STORE_URL_MANUAL"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL."""
    with postgres_server(tmp_path_factory.mktemp("pg")) as url:
        yield url


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


def test_signs_that_a_database_has_not_are_left_out_and_no_others(database: str) -> None:
    """A text may have the six signs by which JSON writes NUL."""
    text = "A NUL is \\u0000 in JSON, and here\0."
    document = Document(title="t", text=text, metadata={"n": "\\u0000", "m": "\0x"})
    source = IndexSource(name="notes", documents=[document])
    made = config(None, "one").model_copy(update={"sources": [source]})
    assert make(made)["chunks"] == 1
    [passage] = found(None, "one", "JSON", {"n": "\\u0000", "m": "\0x"})
    assert (passage.text, passage.metadata) == (text.replace("\0", ""), {"n": "\\u0000", "m": "x"})


def test_what_has_not_changed_is_not_written_again(database: str, server: EmbeddingServer) -> None:
    make(config(server, "one"))
    make(config(server, "two", keep=["one"], used="one"))
    assert len(tables(database)) == 2
    make(config(server, "three", TEXTS[0], "new", keep=["two"], used="two"))
    assert len(tables(database)) == 4, "two leads to the tables of one"
    make(config(server, "four", "other", keep=["three"], used="three"))
    assert len(tables(database)) == 4
    rows = ask(database, "SELECT revision FROM apps.llm_app_revisions ORDER BY 1")
    assert [row["revision"] for row in rows] == ["four", "three"]


def test_without_vectors_no_extension_is_wanted(database: str) -> None:
    make(config(None, "one"))
    make(config(None, "two", "new", keep=[]))
    assert len(tables(database)) == 2
    assert not ask(database, "SELECT 1 FROM pg_extension WHERE extname = 'vector'")
    with pytest.raises(StoreError, match="no revision one of manual"):
        found(None, "one", "x")


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


def test_a_connection_that_ends_within_a_question_is_the_stores_fault() -> None:
    """asyncpg has an error of its own for it, of neither the database nor the network."""
    with pytest.raises(StoreError, match="the database says: InternalClientError"):  # noqa: SIM117
        with told_clearly(Place("postgresql://u@h/d", "apps", OWNER, "manual")):
            raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")


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
