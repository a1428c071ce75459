"""The pages below are cut down from what DocBook, Sphinx and LibreOffice's help write."""

import unicodedata

import pytest
from demo.html_text import Block, Kind, normalize, page_blocks, without_number


def texts(html: str) -> list[tuple[str, str]]:
    return [(block.kind.value, block.text) for block in page_blocks(html)]


def test_keeps_the_text_and_drops_the_navigation_of_docbook() -> None:
    html = """<html><head><title>Not text</title></head><body>
      <div class="navheader"><table><tr><th>Chapter 2</th></tr><tr><td><a href="1">Prev</a></td></tr></table><hr/></div>
      <div class="section"><div class="titlepage"><h2 class="title"><a id="intro"></a>2.1. What is this?</h2></div>
      <div class="toc"><p>Table of Contents</p><dl><dt>2.1.1</dt></dl></div>
      <p>An answer
         on two lines.<a class="footnote" href="#f"><sup>[1]</sup></a></p>
      <ul><li><p>one</p></li><li><p>two</p></li></ul>
      <pre class="screen"># apt-get update
  indented</pre></div>
      <div class="navfooter"><table><tr><td>Next</td></tr></table></div></body></html>"""
    assert page_blocks(html) == [
        Block(Kind.HEADING, "What is this?", 2, "intro"),
        Block(Kind.PROSE, "An answer on two lines."),
        Block(Kind.ITEM, "one"),
        Block(Kind.ITEM, "two"),
        Block(Kind.CODE, "# apt-get update\n  indented"),
    ]


def test_reads_a_note_as_paragraphs_and_a_table_as_rows() -> None:
    html = """<div class="note"><table summary="Note"><tr><td rowspan="2"><img alt="[Note]"/></td><th>Note</th></tr>
      <tr><td><p>First.</p><p>Second.</p></td></tr></table></div>
      <table><tr><th>package</th><th>size</th></tr><tr><td><p>apt</p></td><td></td><td>4211</td></tr></table>"""
    assert texts(html) == [
        ("prose", "First."),
        ("prose", "Second."),
        ("row", "package | size"),
        ("row", "apt | 4211"),
    ]


def test_takes_sphinx_anchors_from_the_section() -> None:
    html = """<div class="related"><ul><li>next</li></ul></div><section id="new-packages">
      <h2><span class="section-number">5.1. </span>New packages<a class="headerlink" href="#n">¶</a></h2>
      <p>Text.</p></section>"""
    assert page_blocks(html)[0] == Block(Kind.HEADING, "New packages", 2, "new-packages")


def test_tells_what_a_help_page_quotes_from_what_it_says() -> None:
    html = """<h1 id="a">Insert</h1><div class="howtoget"><p class="howtogetheader">To access this command...</p>
      <div class="embedded"><p>Choose <span class="emph">Insert - Row</span>.</p></div></div>
      <div class="embedded"><h2 id="b">Row</h2><p>Inserts a row.</p></div>"""
    blocks = page_blocks(html)
    assert [(b.kind.value, b.text, b.quoted) for b in blocks] == [
        ("heading", "Insert", False),
        ("access", "Choose Insert - Row.", False),
        ("heading", "Row", True),
        ("prose", "Inserts a row.", True),
    ]


def test_takes_the_first_of_the_texts_for_several_programs() -> None:
    html = """<p>Press <span class="switchinline"><span hidden="true" class="MAC">Command</span>
      <span hidden="true">Ctrl</span>
      <span hidden="true" class="CALC">Alt</span></span> and click.</p>"""
    assert texts(html) == [("prose", "Press Ctrl and click.")]


def test_joins_lines_of_japanese_without_a_space() -> None:
    assert normalize("これは\n  日本語の Debian\n形式です。") == "これは日本語の Debian 形式です。"


def test_normalizes_unicode_and_removes_what_is_not_seen() -> None:
    decomposed = unicodedata.normalize("NFD", "ガイド é")
    assert normalize(f"\ufeff{decomposed}\u00a0x\u200b") == "ガイド é x"


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ("Chapter 2. Packages", "Packages"),
        ("2.1.3. Basics", "Basics"),
        ("第1章 はじめに", "はじめに"),
        ("付録A 上級", "上級"),
        ("B.2.1. Preseeding", "Preseeding"),
        ("3D Settings", "3D Settings"),
        ("64-bit PC", "64-bit PC"),
    ],
)
def test_strips_the_number_of_a_chapter_but_no_other(heading: str, title: str) -> None:
    assert without_number(heading) == title
