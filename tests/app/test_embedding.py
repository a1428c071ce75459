"""Indexes with vectors, in a folder: what is embedded, and what is not again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_app import embedding, index, store
from llm_app.config import Chunking, Document, IndexConfig, IndexSource, Knowledge, Retrieval
from llm_app.embedded import DONE
from llm_app.figures import Figures
from llm_app.index import make, run
from llm_app.opening import opened
from llm_app.retrieval import Found
from llm_app.store import Index
from llm_trainer.protocol import ExitCode
from tests.app.conftest import Start
from tests.app.embedder import EmbeddingServer, embedding_server

TEXTS = ("Oil the pump every 40 hours.", "The valve is red.", "保証の期間は三年です。")


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as made:
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "FIRST_WAIT", 0.01)


def config(folder: Path, server: EmbeddingServer, revision: str, *texts: str, **more: Any) -> IndexConfig:
    documents = [Document(title=f"t{at}", text=text, metadata={"n": str(at)}) for at, text in enumerate(texts or TEXTS)]
    given: dict[str, Any] = {"embedding": server.settings(), **more}
    return IndexConfig(
        knowledge="manual", revision=revision, folder=str(folder), chunking=Chunking(),
        sources=[IndexSource(name="notes", documents=documents)], **given,
    )  # fmt: skip


async def search(server: EmbeddingServer, folder: Path, question: str, where: Any = None, **retrieval: Any) -> Found:
    settings = Knowledge(
        name="manual", revision="x", folder=str(folder), retrieval=Retrieval(**retrieval), embedding=server.settings()
    )
    async with opened([settings], Figures()) as retriever:
        return await retriever.search(question, where=where)


async def test_what_shares_no_word_is_found_by_its_meaning(
    tmp_path: Path, server: EmbeddingServer, in_thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_APP_EMBEDDING_API_KEY_MANUAL", "s3cret")
    told = await in_thread(make, config(tmp_path, server, "one"))
    assert (told["documents"], told["chunks"], told["dimensions"], told["embedded"]) == (3, 3, 64, 3)
    assert set(server.keys) == {"Bearer s3cret"}
    for question, best in (("lubricate", 0), ("crimson", 1), ("warranty", 2)):
        assert not Index.load(tmp_path / "one").search(question, 3), "no word of it is there"
        for mode in ("dense", "hybrid", None):
            found = await search(server, tmp_path / "one", question, mode=mode, top_k=1)
            assert [passage.text for passage in found.passages] == [TEXTS[best]]
            assert not found.problems
    found = await search(server, tmp_path / "one", "lubricate", mode="dense", minimum_similarity=0.99)
    assert not found.passages
    found = await search(server, tmp_path / "one", "lubricate", mode="dense", where={"n": "1"})
    assert [passage.text for passage in found.passages] == [TEXTS[1]]
    assert not (await search(server, tmp_path / "one", "oil", mode="keyword", where={"n": "1"})).passages


async def test_what_was_found_by_words_alone_is_not_put_before_better(
    tmp_path: Path, server: EmbeddingServer, in_thread: Any
) -> None:
    """Two knowledge bases that were both searched by words have scores of one measure."""
    settings = []
    for name, texts, mode in (
        ("a", ("The pump has oil.", "Red."), "dense"),
        ("b", ("Oil pump: oil, oil.", "Red."), "keyword"),
    ):
        made = config(tmp_path / name, server, "one", *texts).model_copy(update={"knowledge": name})
        await in_thread(make, made)
        folder = str(tmp_path / name / "one")
        retrieval, told = Retrieval(mode=mode), server.settings().model_copy(update={"url": "http://127.0.0.1:9/v1"})
        settings.append(Knowledge(name=name, revision="one", folder=folder, retrieval=retrieval, embedding=told))
    async with opened(settings, Figures()) as retriever:
        found = await retriever.search("oil")
    assert [passage.knowledge for passage in found.passages] == ["b", "a"]
    assert [problem.partition(":")[0] for problem in found.problems] == ["a"]


async def test_prefixes_stand_before_documents_and_questions(
    tmp_path: Path, server: EmbeddingServer, in_thread: Any
) -> None:
    prefixed = server.settings(query_prefix="query: ", document_prefix="passage: ")
    await in_thread(make, config(tmp_path, server, "one", embedding=prefixed))
    assert all(text.startswith("passage: ") for text in server.asked)
    server.asked.clear()
    settings = Knowledge(
        name="m", revision="x", folder=str(tmp_path / "one"), retrieval=Retrieval(), embedding=prefixed
    )
    async with opened([settings], Figures()) as retriever:
        await retriever.search("oil?")
    assert server.asked[0] == "query: oil?"


def test_only_what_has_changed_is_embedded_again(tmp_path: Path, server: EmbeddingServer) -> None:
    make(config(tmp_path, server, "one"))
    server.asked.clear()
    told = make(config(tmp_path, server, "two", TEXTS[0], "A new text.", TEXTS[2], keep=["one"], used="one"))
    assert told["embedded"] == 1
    assert [text.rpartition("\n")[2] for text in server.asked if text != embedding.PROBE] == ["A new text."]
    assert "same" not in told
    assert Index.load(tmp_path / "two").vectors is not None


def test_what_has_not_changed_is_the_revision_before(tmp_path: Path, server: EmbeddingServer) -> None:
    make(config(tmp_path, server, "one"))
    told = make(config(tmp_path, server, "two", keep=["one"], used="one"))
    assert told["same"] == "one"
    assert Index.load(tmp_path / "two").revision == "one"
    assert make(config(tmp_path, server, "two", keep=["one"], used="one"))["same"] == "one", "a second pod of the Job"
    told = make(config(tmp_path, server, "three", keep=["two"], used="two"))
    assert told["same"] == "one", "no chain of names"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["one", "three", "two"], "what is named stays"
    make(config(tmp_path, server, "four", "other", keep=["three"], used="three"))
    assert sorted(found.name for found in tmp_path.iterdir()) == ["four", "one", "three"]


def test_another_model_embeds_all_anew_also_behind_the_same_name(tmp_path: Path, server: EmbeddingServer) -> None:
    make(config(tmp_path, server, "one"))
    told = make(config(tmp_path, server, "two", keep=["one"], used="one", embedding=server.settings("sha256:2")))
    assert told["embedded"] == 3
    server.seed = "another"
    told = make(config(tmp_path, server, "three", keep=["two"], used="two", embedding=server.settings("sha256:2")))
    assert (told["embedded"], told.get("same")) == (3, None)


async def test_a_question_never_meets_the_vectors_of_another_model(
    tmp_path: Path, server: EmbeddingServer, in_thread: Any
) -> None:
    await in_thread(make, config(tmp_path, server, "one"))
    server.seed = "another"
    for question, texts in (("oil", [TEXTS[0]]), ("lubricate", [])):
        found = await search(server, tmp_path / "one", question)
        assert [passage.text for passage in found.passages] == texts
        assert found.problems == [
            "manual: found by words alone: another embedding model is served than that of the index"
        ]


def given(*vectors: list[float]) -> tuple[int, str]:
    data = [{"index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    return 200, json.dumps({"data": data})


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ((500, "x"), "answered 500"),
        ((401, "x"), "does not take the key"),
        ((404, "x"), "does not embed"),
        ((200, "{}"), "answer is none"),
        (given([0, 0], [1, 0]), "without a direction"),
        (given([1, 0]), "1 vectors for 2 texts"),
        ((200, '{"data": [{"index": 7, "embedding": [1, 0]}]}'), "answer is none"),
        (given([1], [1]), "another embedding model"),
        (given([1, 0], [1]), "answer is none"),
    ],
)
async def test_an_embedding_server_that_fails_leaves_the_words(
    tmp_path: Path, server: EmbeddingServer, in_thread: Any, failure: tuple[int, str], says: str
) -> None:
    await in_thread(make, config(tmp_path, server, "one"))
    server.fails.append(failure)
    found = await search(server, tmp_path / "one", "oil")
    assert [passage.text for passage in found.passages] == [TEXTS[0]]
    assert says in found.problems[0]


async def test_clients_are_told_what_was_not_searched(start: Start, server: EmbeddingServer, in_thread: Any,
                                                      tmp_path: Path) -> None:  # fmt: skip
    await in_thread(make, config(tmp_path / "k", server, "one"))
    settings = Knowledge(name="manual", revision="one", folder=str(tmp_path / "k/one"), retrieval=Retrieval(),
                         embedding=server.settings())  # fmt: skip
    app = await start(bases=[settings])
    status, answer = await app.ask("lubricate")
    assert (status, "problems" in answer) == (200, False)
    assert answer["citations"][0]["metadata"] == {"n": "0"}
    server.after = 0
    _, answer = await app.ask("oil")
    assert answer["problems"] == ["manual: found by words alone: the embedding server answered 500"]
    assert (await app.stream("oil"))[-2]["problems"]
    _, found = await app.post("/v1/retrieve", {"query": "oil", "where": {"n": "0"}})
    assert [one["text"] for one in found["data"]] == [TEXTS[0]]
    assert found["problems"]
    _, metrics = await app.get("/metrics")
    assert 'llm_app_searched_less_total{knowledge="manual"} 3.0' in metrics


def test_a_batch_is_tried_again(tmp_path: Path, server: EmbeddingServer) -> None:
    server.fails += [(503, ""), (429, "")]
    assert make(config(tmp_path, server, "one"))["embedded"] == 3


def test_what_a_pod_had_embedded_is_not_embedded_again(
    tmp_path: Path, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "BATCH", 2)
    monkeypatch.setattr(embedding, "AT_ONCE", 1)
    monkeypatch.setattr(embedding, "TRIES", 1)
    texts = [f"Text number {at}." for at in range(7)]
    file = tmp_path / "index.json"
    file.write_text(config(tmp_path / "k", server, "one", *texts).model_dump_json(by_alias=True))
    server.after = 3  # the probe, and two batches
    code, word = run(file)
    assert (code, word["problem"]) == (ExitCode.INTERNAL, "the embedding server answered 500")
    [done] = (tmp_path / "k").glob(f"{DONE}*")
    with done.open("ab") as opened_file:
        opened_file.write(b"torn")
    server.after = None
    code, word = run(file)
    assert (code, word["embedded"], word["chunks"]) == (ExitCode.SUCCEEDED, 3, 7)
    assert not list((tmp_path / "k").glob(f"{DONE}*"))


def test_a_chunk_that_the_model_does_not_take_ends_the_job_at_once(tmp_path: Path, server: EmbeddingServer) -> None:
    server.limit = 200
    file = tmp_path / "index.json"
    file.write_text(config(tmp_path / "k", server, "one", "word " * 100).model_dump_json(by_alias=True))
    code, word = run(file)
    assert code == ExitCode.DATA
    assert "maximum context length is 512 tokens" in str(word["problem"])
    assert "lower chunking.size" in str(word["problem"])


@pytest.mark.parametrize("file", ["vectors.f32", "digests.bin", "probe.f32"])
def test_damaged_vectors_are_told(tmp_path: Path, server: EmbeddingServer, file: str) -> None:
    make(config(tmp_path, server, "one"))
    found = tmp_path / "one" / file
    found.write_bytes(b"X" + found.read_bytes()[1:])
    with pytest.raises(store.IndexDamagedError, match=file):
        Index.load(tmp_path / "one")
    assert make(config(tmp_path, server, "one"))["embedded"] == 3


def test_a_name_that_leads_to_a_name_is_damage(tmp_path: Path, server: EmbeddingServer) -> None:
    for name, other in (("a", "b"), ("b", "a"), ("c", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / store.MANIFEST).write_text(json.dumps({"same": other}))
        with pytest.raises((store.IndexDamagedError, FileNotFoundError)):
            Index.load(tmp_path / name)
    assert index.revision_in(tmp_path, "a") is None
