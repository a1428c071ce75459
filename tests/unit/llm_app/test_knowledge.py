"""From documents to passages: reading, cutting, finding, and an index in its folder."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_app import store
from llm_app.chunks import chunks
from llm_app.config import Chunking, Document, IndexConfig, IndexSource
from llm_app.documents import DataError, Found, Page, documents
from llm_app.index import make, run
from llm_app.keyword import Keywords
from llm_app.prompt import Passage, document, names_in
from llm_app.retrieval import InFolder
from llm_app.store import Index, IndexDamagedError, StoredChunk
from llm_app.words import words
from llm_trainer.protocol import ExitCode

MANUAL = """# Pump

Intro.

## Care

Oil it every 40 hours. Never use water! The valve is red.

```
# no heading
```

# 保証

期間は三年です。部品は無料で交換します。「水に注意」してください。
"""


def test_which_chunks_have_some_metadata_is_looked_for_once_and_takes_a_byte_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients may ask for any: the last ones are kept, not the first."""
    listed = [StoredChunk("s", "t", "", f"oil {n}", {"n": str(n), "even": str(n % 2)}) for n in range(40)]
    index, looked, allowed = Index.of("k", "1", listed, 1), [dict[str, str]()], Index.allowed

    def look(self: Index, where: dict[str, str]) -> bytes | None:
        looked.append(where)
        return allowed(self, where)

    monkeypatch.setattr(Index, "allowed", look)
    backend = InFolder(index, 0.0)

    def found(**where: str) -> list[int]:
        return sorted(number for number, _ in asyncio.run(backend.by_words("oil", 99, 0.0, where)))

    assert found(even="0") == list(range(0, 40, 2))
    for n in range(20):
        assert found(n=str(n)) == [n]
    assert found(n="19", even="0") == []
    assert found() == list(range(40))
    before = len(looked)
    assert found(n="19") == [19]
    assert len(looked) == before
    assert len(allowed(index, {"even": "0"}) or b"") == 40


def test_headings_stand_with_what_is_below_them() -> None:
    found = {chunk.heading: chunk.text for chunk in chunks(MANUAL, Chunking())}
    assert list(found) == ["Pump", "Pump › Care", "保証"]
    assert "# no heading" in found["Pump › Care"]


def test_sentences_stay_whole_in_both_languages() -> None:
    text = "期間は三年です。部品は無料で交換します。" * 10 + "\n\n" + "Oil it every 40 hours. Never use water! " * 10
    for chunk in chunks(text, Chunking(size=100, overlap=30)):
        assert chunk.text[-1] in "。.!", chunk
        assert chunk.text[0] in "期部ON", chunk


@given(st.text(max_size=600), st.integers(100, 200), st.integers(0, 120))
def test_no_chunk_is_too_long_and_nothing_is_lost(text: str, size: int, overlap: int) -> None:
    made = list(chunks(text, Chunking(size=size, overlap=overlap)))
    assert all(0 < len(chunk.text) <= size for chunk in made)
    kept = "".join(chunk.text + chunk.heading for chunk in made)
    assert set("".join(text.split())) - set("#") <= set(kept), "a letter has gone"


def test_words_of_both_languages() -> None:
    assert list(words("The ＡＢＣ-valve, v2")) == ["the", "abc", "valve", "v2"]
    assert list(words("東京都のGPU")) == ["東京", "京都", "都の", "gpu"]
    assert list(words("駅。ｶﾞｽ")) == ["駅", "ガス"]
    assert list(words("!? \n")) == []


TEXTS = ["the pump is red", "the valve of the pump", "東京都の天気は晴れです", "京都の寺"]


@pytest.mark.parametrize(
    ("question", "best"),
    [("Which VALVE?", 1), ("東京の天気", 2), ("京都にある寺", 3), ("red", 0), ("nothing here", None), ("", None)],
)
def test_the_best_chunk_is_first(question: str, best: int | None) -> None:
    found = [number for number, _ in Keywords.of(TEXTS).search(question, 3)]
    assert found[:1] == ([] if best is None else [best])


def test_scores_are_bounded_below_and_a_word_of_all_chunks_weighs_least() -> None:
    keywords = Keywords.of(TEXTS)
    scores = dict(keywords.search("the red", 9))
    assert scores[0] > scores[1]
    assert list(dict(keywords.search("the red", 9, minimum=scores[0]))) == [0]
    assert not Keywords.of([]).search("anything", 3)


def index_of(folder: Path, *texts: str, revision: str = "one", keep: tuple[str, ...] = ()) -> IndexConfig:
    given = [Document(title=f"t{at}", text=text) for at, text in enumerate(texts)]
    source = IndexSource(name="notes", documents=given)
    return IndexConfig(
        knowledge="manual", revision=revision, folder=str(folder), keep=[*keep], chunking=Chunking(), sources=[source]
    )


def test_an_index_is_made_once_and_found_again(tmp_path: Path) -> None:
    config = index_of(tmp_path / "a", *TEXTS)
    assert make(config) == {"documents": 4, "chunks": 4}
    before = (tmp_path / "a/one" / store.MANIFEST).stat().st_mtime_ns
    assert make(config) == {"documents": 4, "chunks": 4}
    assert (tmp_path / "a/one" / store.MANIFEST).stat().st_mtime_ns == before
    [passage] = Index.load(tmp_path / "a/one").search("東京の天気は?", 1)
    assert (passage.text, passage.source, passage.title, passage.revision) == (TEXTS[2], "notes", "t2", "one")


def test_other_revisions_stay_only_if_they_are_in_use(tmp_path: Path) -> None:
    for revision in ("one", "two"):
        make(index_of(tmp_path, *TEXTS, revision=revision, keep=("one",)))
    (tmp_path / f"{store.UNFINISHED}x").mkdir()
    make(index_of(tmp_path, *TEXTS, revision="three", keep=("two",)))
    assert sorted(found.name for found in tmp_path.iterdir()) == ["three", "two"]


def test_two_pods_may_make_the_same_at_once(tmp_path: Path) -> None:
    config = index_of(tmp_path, *TEXTS * 50)
    threads = [threading.Thread(target=Index.save, args=(built(config), tmp_path / "one")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.name for found in tmp_path.iterdir()] == ["one"]
    assert len(Index.load(tmp_path / "one").chunks) == 200


def built(config: IndexConfig) -> Index:
    texts = [StoredChunk("notes", document.title, "", document.text) for document in config.sources[0].documents]
    return Index.of(config.knowledge, config.revision, texts, len(texts))


@pytest.mark.parametrize("file", [store.CHUNKS, "words.json", "weights.f32", store.MANIFEST])
@pytest.mark.parametrize("harm", ["cut", "gone", "changed"])
def test_what_is_damaged_is_told_and_made_anew(tmp_path: Path, file: str, harm: str) -> None:
    config = index_of(tmp_path, *TEXTS)
    make(config)
    found = tmp_path / "one" / file
    whole = found.read_bytes()
    if harm == "gone":
        found.unlink()
    else:
        found.write_bytes(whole[:-7] if harm == "cut" else b"X" + whole[1:])
    with pytest.raises((IndexDamagedError, FileNotFoundError)):
        Index.load(tmp_path / "one")
    assert make(config) == {"documents": 4, "chunks": 4}
    assert Index.load(tmp_path / "one").search("valve", 1)


def read(path: Path, *, all_are_text: bool = False) -> tuple[list[Document], Found]:
    found = Found()
    source = IndexSource(name="files", path=str(path), all_are_text=all_are_text)
    return list(documents(source, found)), found


def test_files_of_each_kind(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfwith a mark")
    (tmp_path / "b/c.md").write_text("# 見出し\n\n本文")
    (tmp_path / "d.jsonl").write_text('{"title": "row", "text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "e.html").write_text(
        "<title>T</title><style>x</style><h2>H</h2><p>a<br>b &amp; c<script>bad()</script>"
    )
    (tmp_path / "f.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "g.txt").write_text(" \n")
    (tmp_path / ".hidden.txt").write_text("not this")
    told, found = read(tmp_path)
    assert [one.text for one in told if one.text.strip()] == [
        "with a mark",
        "# 見出し\n\n本文",
        "one",
        "two",
        "## H\na\nb & c",
    ]
    assert [one.title for one in told if one.text in ("one", "## H\na\nb & c")] == ["row", "T"]
    assert (found.empty, found.others) == (["g.txt"], {".png": 1})
    assert len(read(tmp_path / "*.txt")[0]) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"\xff\xfeh\0", "UTF-16"),
        ("a.txt", b"one\ntwo \x80", "line 2 is not UTF-8"),
        ("a.md", b"a\0b", "NUL bytes"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 1}', "line 2 has no text"),
        ("a.jsonl", b"[" * 100_000, "line 1 is no JSON"),
        ("a.pdf", b"%PDF-1.7 /Encrypt", "is damaged"),
        ("a.pdf", b"", "is damaged"),
        ("a.docx", b"PK", ".docx is not read"),
        ("a.jsonl", b'{"text": "x", "metadata": {"a": ["b"]}}', "line 1: metadata.a. is no text"),
    ],
)
def test_what_can_not_be_read_is_told_by_its_name(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{says}"):
        read(file)


def test_a_file_of_a_gibibyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(DataError, match="1024 MiB"):
        read(tmp_path / "a.txt")


def test_a_page_of_unclosed_tags_is_read() -> None:
    assert Page("<div><title>a<p>text<nav>menu</nav><li>x").text == "text\nx"
    assert Page("<p>a &lt; b <and the rest &amp; so").text == "a < b <and the rest & so"


def test_html_that_is_none_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<![<![ >")
    with pytest.raises(DataError, match=r"a\.html: can't be read as HTML"):
        read(tmp_path / "a.html")


# Twice as long, such a text took four or eight times as long.
@pytest.mark.parametrize("text", ["# a{}b", "# a {}#", "a{}b", "<p>{}", "{{{{{}", "<{}document"])
@pytest.mark.parametrize("part", [" ", "\t", "#", "<a ", "<!--", "<a b='", "。", "{"])
def test_time_grows_with_the_text_alone(tmp_path: Path, text: str, part: str) -> None:
    """A pattern that tries all ways to share out blanks takes hours for this; pytest's time limit ends it."""
    (tmp_path / "a.html").write_text(text.format(part * 30_000))
    whole = text.format(part * 30_000) + "\n\ntext"
    assert list(chunks(whole, Chunking(size=8000, overlap=4000)))
    assert read(tmp_path / "a.html")[0]
    assert document(1, Passage("k", "s", "t", whole, 1.0))
    assert names_in(whole) is not None


def test_what_leads_out_of_a_claim_or_a_config_map_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be read as the pod's user, and told to whoever asks."""
    monkeypatch.setattr("llm_app.documents.VOLUMES", str(tmp_path / "volumes"))
    claim, other = tmp_path / "volumes" / "corpus", tmp_path / "volumes" / "corpus-2"
    for folder in (claim / "manual", other):
        folder.mkdir(parents=True)
        (folder / "a.md").write_text("text")
    (claim / "manual" / "b.md").symlink_to("a.md")
    assert len(read(claim / "manual")[0]) == 2, "inside of it a link is a way to share files"
    for at, leads in ((claim / "manual", other / "a.md"), (claim / "manual", Path("/proc/self/environ"))):
        link = at / "c.md"
        link.symlink_to(leads)
        for named in (at, link, at / "*.md"):
            with pytest.raises(DataError, match=r"corpus/manual/c\.md: leads out of corpus; put a copy"):
                read(named)
        link.unlink()
    (claim / "away").symlink_to(other)
    with pytest.raises(DataError, match="leads out of corpus"):
        read(claim / "away" / "a.md")
    maps = tmp_path / "sources" / "faq"
    (maps / "..data").mkdir(parents=True)
    (maps / "..data" / "a.md").write_text("text")
    (maps / "a.md").symlink_to("..data/a.md")
    mounted = IndexSource(name="faq", path=str(maps), all_are_text=True)
    assert len(list(documents(mounted, Found()))) == 1
    (maps / "b.md").symlink_to(other / "a.md")
    with pytest.raises(DataError, match="leads out of faq"):
        list(documents(mounted, Found()))


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"sources": [{"name": "a", "path": "/nowhere/x.md"}]}, ExitCode.DATA, "does not exist"),
        ({"sources": [{"name": "a", "documents": [{"text": " "}]}]}, ExitCode.DATA, "no document has any text"),
        ({"folder": "/proc/none"}, ExitCode.STORAGE, "/proc/none"),
        ({"chunking": {"size": 1}}, ExitCode.INTERNAL, "size"),
    ],
)
def test_a_job_ends_with_its_cause(tmp_path: Path, change: dict[str, object], code: ExitCode, says: str) -> None:
    file = tmp_path / "index.json"
    whole = json.loads(index_of(tmp_path / "k", *TEXTS).model_dump_json(by_alias=True))
    file.write_text(json.dumps({**whole, **change}))
    ended, word = run(file)
    assert ended == code
    assert says in str(word["problem"])
    shutil.rmtree(tmp_path / "k", ignore_errors=True)
