"""Turns a page of HTML documentation (DocBook, Sphinx, LibreOffice help) into blocks of plain text.

Only what an author wrote as text is kept: navigation, tables of contents, footnotes, icons and scripts are left out.
The standard library's parser is enough, because the pages are machine-made and well-formed.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from html.parser import HTMLParser

SKIPPED_TAGS = {"head", "script", "style", "noscript", "header", "footer", "aside", "nav", "button", "sup"}
SKIPPED_IDS = {"banner", "title", "SearchFrame", "DonationFrame"}
# By the tool that makes the pages: DocBook, Debian Handbook, Sphinx, LibreOffice help.
SKIPPED_CLASSES = {
    "navheader", "navfooter", "toc", "index", "indexterm", "footnote", "footnotes", "legalnotice", "authorgroup",
    "revhistory", "copyright", "releaseinfo", "pubdate", "list-of-tables", "list-of-figures", "list-of-examples",
    "mediaobject", "longdesc-link",
    "docnav", "url",
    "related", "sphinxsidebar", "toctree-wrapper", "headerlink", "section-number", "footnote-reference", "fn-backref",
    "relatedtopics", "icontable", "noteicon", "howtogetheader", "MAC",
}  # fmt: skip
VOID_TAGS = {"br", "hr", "img", "input", "meta", "link", "col", "wbr", "area", "base"}
BLOCK_TAGS = {"p", "div", "section", "li", "dt", "dd", "pre", "ul", "ol", "dl", "blockquote", "body", "article"}
HEADINGS = {f"h{level}": level for level in range(1, 7)}
SIDEBAR_LEVEL = 5  # the Debian Handbook's sidebars have a title but no heading
ADMONITIONS = {"note", "tip", "caution", "warning", "important"}

CJK = r"\u3001-\u30ff\u3400-\u9fff\uff00-\uffef"
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028\u2029\u2060\ufeff]")
_LINE_BREAK_IN_JAPANESE = re.compile(rf"(?<=[{CJK}])[^\S\n]*\n\s*(?=[{CJK}])")
_CHAPTER_NUMBER = re.compile(
    r"^(?:(?:Chapter|Appendix) [\dA-Z]+\. ?|第 ?\d+ ?章[.、]? ?|付録 ?[A-Z]\.? ?"
    r"|[A-Z]\.\d+(?:\.\d+)*\.? |\d+(?:\.\d+)*\. ?|\d+(?:\.\d+)+ )"
)


class Kind(StrEnum):
    """What a block is."""

    HEADING = "heading"
    PROSE = "prose"
    ITEM = "item"  # of a list
    TERM = "term"  # which the next block explains
    ROW = "row"  # of a table, cells joined by " | "
    ACCESS = "access"  # where a program's command is found in its menus
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """One paragraph, heading, list item, table row or program text; `text` is in Unicode NFC."""

    kind: Kind
    text: str
    level: int = 0  # of a heading, 1 to 6
    anchor: str = ""  # of a heading: its id on the page, the same in every language
    quoted: bool = False  # the page embeds it from another page


def page_blocks(html: str) -> list[Block]:
    """The text of one page, in order."""
    parser = _PageParser()
    parser.feed(html)
    parser.close()
    parser.flush()
    return parser.blocks


def normalize(text: str) -> str:
    """NFC, no invisible characters, white space to single spaces, lines of Japanese joined without one."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    return re.sub(r"\s+", " ", _LINE_BREAK_IN_JAPANESE.sub("", text)).strip()


def normalize_code(text: str) -> str:
    """NFC, no invisible characters, no white space at line ends, one empty line at most; lines and indentation stay."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).replace("\u00a0", " ").expandtabs(4)
    lines = "\n".join(line.rstrip() for line in text.strip("\n").splitlines()).rstrip()
    return re.sub(r"\n{3,}", "\n\n", lines)


def without_number(title: str) -> str:
    """A heading without the number of its chapter or section."""
    return _CHAPTER_NUMBER.sub("", title).strip()


@dataclass(slots=True)
class _Skip:
    tag: str
    depth: int = 1


@dataclass(slots=True)
class _Open:
    """An element that is open, as far as it says how the text in it is read."""

    tag: str
    classes: set[str]
    variants: int = 0  # children seen, where the element offers one text per program or operating system


@dataclass(slots=True)
class _Text:
    parts: list[str] = field(default_factory=list)
    level: int = 0
    anchor: str = ""


class _PageParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._skip: _Skip | None = None
        self._open: list[_Open] = []
        self._text = _Text()
        self._row: list[str] | None = None
        self._anchor = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if self._skip:
            self._skip.depth += tag == self._skip.tag
            return
        classes = set((attributes.get("class") or "").split())
        if tag in {"a", "section", *HEADINGS}:
            self._anchor = attributes.get("id") or attributes.get("name") or self._anchor
        if tag in VOID_TAGS:
            self._text.parts.append(" " if tag == "br" and not self._inside("pre") else "\n" if tag == "br" else "")
            return
        if self._is_left_out(tag, attributes, classes):
            self._skip = _Skip(tag)
            return
        self._begin(tag, classes)
        self._open.append(_Open(tag, classes))

    def handle_endtag(self, tag: str) -> None:
        if self._skip:
            self._skip.depth -= tag == self._skip.tag
            if self._skip.depth == 0:
                self._skip = None
            return
        if tag in VOID_TAGS or not self._inside(tag):
            return
        self._end(tag)
        while self._open.pop().tag != tag:
            pass  # an element whose end tag HTML lets out, such as li

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self._text.parts.append(data)

    def _is_left_out(self, tag: str, attributes: dict[str, str | None], classes: set[str]) -> bool:
        if tag in SKIPPED_TAGS or classes & SKIPPED_CLASSES or attributes.get("id") in SKIPPED_IDS:
            return True
        if (tag == "th" and self._in_admonition()) or ("emphasis" in classes and self._text.level == SIDEBAR_LEVEL):
            return True  # "Note", "BACK TO BASICS": what kind of remark it is
        parent = self._open[-1] if self._open else None
        if parent and parent.classes & {"switch", "switchinline"} and attributes.get("hidden"):
            parent.variants += 1  # of the texts for several programs, take the first
            return parent.variants > 1
        return False

    def _begin(self, tag: str, classes: set[str]) -> None:
        if tag == "tr" and not self._in_admonition():
            self.flush()
            self._row = []
        elif tag in {"td", "th"} and self._row is not None:
            self._text.parts.clear()
        elif self._breaks(tag):
            self.flush()
        if tag in HEADINGS or (tag == "p" and "title" in classes and self._inside_class("sidebar")):
            self._text = _Text(level=HEADINGS.get(tag, SIDEBAR_LEVEL))

    def _end(self, tag: str) -> None:
        if tag in {"td", "th"} and self._row is not None:
            self._row.append(normalize("".join(self._text.parts)))
            self._text.parts.clear()
        elif tag == "tr" and self._row is not None:
            self._text.parts = [" | ".join(cell for cell in self._row if cell)]
            self.flush()
            self._row = None
        elif self._breaks(tag):
            self.flush()

    def flush(self) -> None:
        """Ends the block that is being read."""
        kind = self._kind()
        code = kind is Kind.CODE
        text = normalize_code("".join(self._text.parts)) if code else normalize("".join(self._text.parts))
        level, self._text = self._text.level, _Text()
        if kind is Kind.HEADING:
            text = without_number(text)
        if text:
            quoted = self._inside_class("embedded") and not self._inside_class("howtoget")
            self.blocks.append(Block(kind, text, level, self._anchor if level else "", quoted))

    def _kind(self) -> Kind:
        if self._row is not None:
            return Kind.ROW
        if self._text.level:
            return Kind.HEADING
        if self._inside("pre") or self._inside_class("code") or self._inside_class("codeintable"):
            return Kind.CODE
        if self._inside_class("howtoget"):
            return Kind.ACCESS
        for element in reversed(self._open):
            if element.tag in {"li", "dt", "dd"}:
                return {"li": Kind.ITEM, "dt": Kind.TERM, "dd": Kind.PROSE}[element.tag]
        return Kind.PROSE

    def _breaks(self, tag: str) -> bool:
        """Whether the tag begins or ends a block; in a table's cell nothing does."""
        if self._row is not None:
            self._text.parts.append(" " if tag in BLOCK_TAGS else "")
            return False
        return tag in BLOCK_TAGS or tag in HEADINGS or tag in {"table", "td", "th", "tr"}

    def _inside(self, tag: str) -> bool:
        return any(element.tag == tag for element in self._open)

    def _inside_class(self, name: str) -> bool:
        return any(name in element.classes for element in self._open)

    def _in_admonition(self) -> bool:
        """DocBook draws a note as a table; what it holds are paragraphs."""
        return any(element.classes & ADMONITIONS for element in self._open)
