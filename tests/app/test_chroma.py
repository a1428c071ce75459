"""What is of Chroma alone: its faults, and what is another's. On its real server."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_app import chroma_index, chroma_search, embedding
from llm_app.chroma import Chroma, Place
from llm_app.config import ChromaServer, Chunking, Document, IndexConfig, IndexSource, Knowledge, Retrieval, Store
from llm_app.index import make, run
from llm_trainer.protocol import ExitCode
from tests.app.conftest import Start
from tests.app.embedder import EmbeddingServer, embedding_server
from tests.app.store_servers import ChromaProcess, chroma_server

PATH = "/api/v2/tenants/default_tenant/databases"
DATABASE = f"{PATH}/default_database"
ON_A_SMALL_DISK = 'mount -t tmpfs -o size=2m none "$1" && shift && exec "$@"'


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaProcess]:
    with chroma_server(tmp_path_factory.mktemp("chroma")) as server:
        yield server


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setattr(embedding, "FIRST_WAIT", 0.01)
    with embedding_server() as made:
        yield made


@pytest.fixture
def owner(tmp_path: Path) -> str:
    return tmp_path.parent.name + tmp_path.name  # of one test alone


def ask(server: ChromaProcess, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(asked) as answer:
        return json.loads(answer.read())


def collections(server: ChromaProcess, owner: str) -> list[str]:
    found = ask(server, "GET", f"{DATABASE}/collections?limit=1000")
    return sorted(one["name"] for one in found if (one["metadata"] or {}).get("owner") == owner)


def store(url: str, owner: str, **server: str) -> Store:
    given = {"tenant": "default_tenant", "database": "default_database", **server}
    return Store(owner=owner, chroma=ChromaServer.model_validate({"url": url, **given}))


def config(
    kept: Store, revision: str, *texts: str, embedder: EmbeddingServer | None = None, **more: Any
) -> IndexConfig:
    documents = [Document(title=f"t{at}", text=text) for at, text in enumerate(texts or ("Oil the pump.",))]
    return IndexConfig(
        knowledge="manual", revision=revision, folder="", chunking=Chunking(), store=kept,
        embedding=embedder.settings() if embedder else None,
        sources=[IndexSource(name="notes", documents=documents)], **more,
    )  # fmt: skip


def ended(made: IndexConfig, folder: Path) -> tuple[int, str]:
    """The exit code of a Job, and its problem."""
    file = folder / "index.json"
    file.write_text(made.model_dump_json(by_alias=True))
    code, word = run(file)
    return code, str(word.get("problem"))


def test_a_revision_is_two_collections_and_the_old_ones_go(chroma: ChromaProcess, owner: str) -> None:
    kept = store(chroma.url, owner)
    place = Place.of(config(kept, "x"), "manual")
    make(config(kept, "one"))
    first = collections(chroma, owner)
    assert first[0] == place.collection_of("one")
    assert len(first) == 2
    make(config(kept, "two", keep=["one"], used="one"))
    assert {*first, place.collection_of("two")} == {*collections(chroma, owner)}, "nothing has changed"
    body = {"name": f"{place.collection_of('lost')}-1", "metadata": {"owner": owner, "knowledge": "manual",
                                                                     "revision": "lost"}}  # fmt: skip
    ask(chroma, "POST", f"{DATABASE}/collections", body)
    make(config(kept, "three", "new", keep=["two"], used="two"))
    left = collections(chroma, owner)
    assert body["name"] not in left, "what a killed pod has left"
    assert len(left) == 5
    make(config(kept, "four", "other"))
    assert len(collections(chroma, owner)) == 2


def test_many_words_lie_in_many_records(
    chroma: ChromaProcess, owner: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(chroma_index, "POSTINGS", 2)
    monkeypatch.setattr(chroma_index, "BATCH", 3)
    monkeypatch.setattr(chroma_search, "KEPT_WORDS", 1)
    kept = store(chroma.url, owner)
    assert ended(config(kept, "one", *(f"word{at} of {at * 7}" for at in range(40))), tmp_path)[0] == 0


async def test_the_metadata_that_was_asked_for_last_is_kept(
    chroma: ChromaProcess, owner: str, monkeypatch: pytest.MonkeyPatch, in_thread: Any
) -> None:
    """Clients may ask for any; what they asked for once must not take the places for ever."""
    monkeypatch.setattr(chroma_search, "CHOICES", 2)
    documents = [Document(title=f"t{at}", text=f"oil {at}", metadata={"n": str(at)}) for at in range(4)]
    kept = store(chroma.url, owner)
    made = config(kept, "one").model_copy(update={"sources": [IndexSource(name="notes", documents=documents)]})
    await in_thread(make, made)
    paths: list[str] = []
    asked = Chroma.ask

    async def counted(self: Chroma, method: str, path: str, body: Any = None, **more: bool) -> Any:
        paths.append(f"{path} {'where' in (body or {})}")
        return await asked(self, method, path, body, **more)

    monkeypatch.setattr(Chroma, "ask", counted)
    settings = Knowledge(name="manual", revision="one", folder="", retrieval=Retrieval(), store=kept)
    async with chroma_search.InChroma.opened(settings) as index:
        for number in ("0", "1", "2", "3", "3", "2"):
            [(found, _)] = await index.by_words("oil", 9, 0.0, {"n": number})
            assert found == int(number)
    assert len([path for path in paths if path.endswith("/get True")]) == 4, "3 and 2 are known"


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ({"url": "http://127.0.0.1:1"}, ExitCode.INTERNAL, "Chroma can't be reached"),
        ({"database": "nobody"}, ExitCode.DATA, "Chroma has no database nobody of tenant default_tenant; create it"),
        ({"tenant": "nobody"}, ExitCode.DATA, "of tenant nobody; create it"),
    ],
)
def test_what_is_wrong_with_a_store_is_told(
    chroma: ChromaProcess, owner: str, tmp_path: Path, given: dict[str, str], code: ExitCode, says: str
) -> None:
    got, said = ended(config(store(**{"url": chroma.url, "owner": owner, **given}), "one"), tmp_path)
    assert (got, says in said) == (code, True), said


async def test_what_is_no_chroma(start: Start, in_thread: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app's own server stands for any other; with a key it refuses as a gateway before Chroma does."""
    monkeypatch.setenv("LLM_APP_STORE_TOKEN_MANUAL", "s3cret")
    app = await start(knowledge=False)
    code, said = await in_thread(ended, config(store(app.url, "a"), "one"), tmp_path)
    assert (code, "has no API v2 of Chroma" in said) == (ExitCode.DATA, True), said
    guarded = await start(knowledge=False, key="another")
    code, said = await in_thread(ended, config(store(guarded.url, "a"), "one"), tmp_path)
    assert (code, "does not take the token" in said) == (ExitCode.DATA, True), said
    assert "s3cret" not in said


def test_the_token_goes_as_the_server_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_APP_STORE_TOKEN_MANUAL", " s3cret\n")
    for header, value in (("X-Chroma-Token", "s3cret"), ("Authorization", "Bearer s3cret")):
        place = Place.of(config(store("http://x", "a", token_header=header), "one"), "manual")
        assert place.headers == {header: value}


def test_a_collection_of_another_is_neither_read_nor_removed(chroma: ChromaProcess, owner: str, tmp_path: Path) -> None:
    made = config(store(chroma.url, owner), "one")
    name = Place.of(made, "manual").collection_of("one")
    ask(chroma, "POST", f"{DATABASE}/collections", {"name": name, "metadata": {"owner": "somebody"}})
    code, said = ended(made, tmp_path)
    assert (code, f"collection {name} of Chroma is not this app's" in said) == (ExitCode.DATA, True), said
    assert ended(config(store(chroma.url, owner), "two"), tmp_path)[0] == 0
    assert ask(chroma, "GET", f"{DATABASE}/collections/{name}")["metadata"] == {"owner": "somebody"}


def test_a_collection_that_somebody_has_changed_is_told(chroma: ChromaProcess, owner: str, tmp_path: Path) -> None:
    made = config(store(chroma.url, owner), "one")
    make(made)
    name = Place.of(made, "manual").collection_of("one")
    found = ask(chroma, "GET", f"{DATABASE}/collections/{name}")
    told = {key: value for key, value in found["metadata"].items() if key != "content"}
    ask(chroma, "PUT", f"{DATABASE}/collections/{found['id']}", {"new_metadata": told})
    code, said = ended(made, tmp_path)
    assert (code, "has not what this app puts there" in said) == (ExitCode.DATA, True), said


def test_a_server_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real file system that is full, of a namespace that ends with the server. Chroma may hang there."""
    monkeypatch.setattr(chroma_index, "WRITE_SECONDS", 30.0)
    data = tmp_path / "data"
    data.mkdir()
    before = ["unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", str(data)]
    with chroma_server(data, before) as server:
        kept = store(server.url, "a")
        texts = [f"{at} " * 1500 for at in range(1000, 1400)]
        code, said = ended(config(kept, "one", *texts), tmp_path)
    assert code in (ExitCode.INTERNAL, ExitCode.NO_SPACE), said
    assert said.startswith(("Chroma can't write, its volume may be full", "Chroma has no room", "Chroma does not")), (
        said
    )


async def test_a_server_that_goes_away_is_told_to_clients(
    tmp_path: Path, embedder: EmbeddingServer, start: Start, in_thread: Any
) -> None:
    with chroma_server(tmp_path / "data") as server:
        kept = store(server.url, "a")
        await in_thread(make, config(kept, "one", "Oil the pump.", "It is red.", embedder=embedder))
        settings = Knowledge(name="manual", revision="one", folder="", retrieval=Retrieval(), store=kept,
                             embedding=embedder.settings())  # fmt: skip
        app = await start(bases=[settings])
        status, answer = await app.ask("lubricate")
        assert (status, answer["citations"][0]["title"]) == (200, "t0")
        server.stop()
        for path, body in (("/v1/retrieve", {"query": "oil"}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "oil"}]})):  # fmt: skip
            status, answer = await app.post(path, body)
            assert (status, answer["error"]["code"]) == (503, "knowledge_unavailable")
            assert answer["error"]["message"].startswith("knowledge can't be searched: Chroma can't be reached")
        await in_thread(server.start)
        status, answer = await app.ask("lubricate")
        assert (status, answer["citations"][0]["title"]) == (200, "t0"), "it comes back by itself, with all it had"
