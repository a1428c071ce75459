import dataclasses
import subprocess
from pathlib import Path

import pytest
from demo.corpus import (
    DOCUMENT_BYTES,
    cut_documents,
    extract,
    is_untranslated,
    render,
    without_empty_headings,
    without_quotations,
)
from demo.html_text import Block, Kind
from demo.packages import SOURCES, Package, PackageError, Source, download, read_files, read_licence

ENGLISH = Source("a", "work", "en", "manual", "")
JAPANESE = dataclasses.replace(ENGLISH, language="ja")


def heading(text: str, level: int = 1) -> Block:
    return Block(Kind.HEADING, text, level, anchor=text)


def prose(text: str) -> Block:
    return Block(Kind.PROSE, text)


@pytest.mark.parametrize(
    ("text", "untranslated"),
    [
        ("Choose Sheet - Insert Page Break.", True),
        ("The following commands allow modification of the information stored in the user databases", True),
        (
            "One can edit this file directly, but there are more elegant ways to do so: see 第 8.4.3 節「変更」。",
            True,
        ),
        ("GNU General Public License", False),
        ("apt-get install reportbug", False),
        ("reportbug パッケージをインストールしてください。", False),
    ],
)
def test_tells_untranslated_english_from_names(text: str, untranslated: bool) -> None:
    assert is_untranslated(prose(text)) is untranslated


def test_never_takes_program_text_for_untranslated() -> None:
    assert not is_untranslated(Block(Kind.CODE, "This is the output of a program, in English."))


def test_leaves_out_what_a_page_quotes_from_another() -> None:
    quote = Block(Kind.PROSE, "Inserts a row.", quoted=True)
    orphan = Block(Kind.PROSE, "Only quoted.", quoted=True)
    pages = {"menu": [quote, orphan], "row": [prose("Inserts a row.")]}
    assert without_quotations(pages) == {"menu": [orphan], "row": [prose("Inserts a row.")]}


def test_leaves_out_headings_with_nothing_under_them() -> None:
    blocks = [heading("1"), heading("1.1", 2), heading("2"), heading("2.1", 2), prose("text"), heading("3")]
    assert without_empty_headings(blocks) == [heading("2"), heading("2.1", 2), prose("text")]


def test_renders_plain_text_with_markdown_headings() -> None:
    blocks = [
        heading("Title", 2),
        prose("A paragraph."),
        Block(Kind.ITEM, "one"),
        Block(Kind.ITEM, "two"),
        Block(Kind.TERM, "ASCII:"),
        prose("A code."),
        Block(Kind.CODE, "# ls\n\n  x"),
        Block(Kind.ROW, "a | b"),
        Block(Kind.ROW, "c | d"),
    ]
    assert render(blocks) == (
        "## Title\n\nA paragraph.\n\n- one\n- two\n\nASCII: A code.\n\n    # ls\n\n      x\n\na | b\nc | d"
    )


def test_cuts_a_page_at_headings_and_loses_nothing() -> None:
    long = "x" * DOCUMENT_BYTES
    blocks = [heading("A"), prose("short"), heading("B", 2), prose(long), heading("C", 2), prose("last")]
    documents = list(cut_documents("work/page", blocks))
    assert [document.id for document in documents] == ["work/page#A", "work/page#C"]
    assert "\n\n".join(document.text for document in documents) == render(blocks)


def test_extract_drops_english_and_repetitions_and_counts_them() -> None:
    paragraph = "この文書は、すべての人が読めるように書かれた、とても長い日本語の段落です。" * 3
    english = "This sentence was never translated."
    pages = {"1": [heading("一"), prose(paragraph), prose(english)], "2": [heading("二"), prose(paragraph)]}
    result = extract(JAPANESE, pages, seen=set())
    assert [document.text for document in result.documents] == [f"# 一\n\n{paragraph}"]
    assert result.dropped.untranslated == len(english)
    assert result.dropped.repeated == len(paragraph.encode())


def test_extract_leaves_out_a_japanese_page_that_is_program_text() -> None:
    pages = {"1": [heading("見出し"), Block(Kind.CODE, "configure --prefix=/usr " * 20)]}
    assert extract(JAPANESE, pages, seen=set()).documents == []
    assert len(extract(ENGLISH, pages, seen=set()).documents) == 1


MACHINE_READABLE = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: png/*
License: public-domain

Files:     *
Copyright: 1998-2022 The authors
License:   GPL-2+
"""


def test_reads_the_licence_of_all_files() -> None:
    assert read_licence("a", MACHINE_READABLE) == "GPL-2+"
    assert read_licence("a", "It is\nlicensed under the terms of the GNU GPL, version 2.") == "GPL-2"


@pytest.mark.parametrize("text", [MACHINE_READABLE.replace("GPL-2+", "CC-BY-NC-4.0"), "All rights reserved."])
def test_refuses_a_licence_that_it_does_not_know(text: str) -> None:
    with pytest.raises(PackageError, match="debian-secret: the licence is"):
        read_licence("debian-secret", text)


def test_every_domain_has_both_languages() -> None:
    pairs = {(source.language, source.domain) for source in SOURCES}
    assert pairs == {(language, domain) for language in ("en", "ja") for domain in ("manual", "office")}


def test_reads_a_real_package(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: a\n"
    )
    for name in ("b.html", "a.html", "a.txt"):
        path = tree / "usr/share/doc/a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<p>{name} é</p>")
    subprocess.run(["dpkg-deb", "--build", tree, tmp_path / "a.deb"], check=True, capture_output=True)
    files = list(read_files(tmp_path / "a.deb", r"/doc/a/(\w+)\.html"))
    assert files == [(f"./usr/share/doc/a/{name}.html", f"<p>{name}.html é</p>") for name in ("a", "b")]


def test_removes_a_download_that_is_not_what_the_index_says(tmp_path: Path) -> None:
    path = tmp_path / "a_1%3a2_all.deb"
    path.write_bytes(b"altered")
    with pytest.raises(PackageError, match="sha256"):
        download(Package("a", "1:2", "a_2_all.deb", "0" * 64), tmp_path)
    assert not path.exists()
