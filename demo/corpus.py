"""Builds the demo's corpus: real, freely licensed text in two languages and two domains.

    python -m demo.corpus OUT_FOLDER

writes one `<domain>-<language>.jsonl` each ({"id", "title", "text"} a line), `sources.json` and the packages' copyright
files. The text is plain, with headings as in Markdown and program text indented by four spaces: docs/demo_corpus.md.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo import html_text, packages
from demo.html_text import CJK, Block, Kind, page_blocks
from demo.packages import SOURCES, Package, PackageError, Source, download, find_packages, read_files, read_licence

DOCUMENT_BYTES = 1_000  # a document ends at the first heading after so much text ...
DOCUMENT_LEVEL = 3  # ... unless that is a small one, such as "Example"
LEAST_BYTES = 200  # less text than this is no document
REPEATED_BYTES = 60  # a paragraph of at least this size is kept only where it comes first
JAPANESE_SHARE = 0.2  # of the letters of a Japanese document must be kana or kanji

_JAPANESE = re.compile(rf"[{CJK}]")
_WORD = re.compile(r"[A-Za-z][a-z'’-]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A section of a manual, or a page of help."""

    id: str  # work/page#anchor: the same in every language
    title: str
    text: str


@dataclass(slots=True)
class Dropped:
    """Bytes of text that were left out, by reason."""

    untranslated: int = 0
    repeated: int = 0
    short: int = 0


@dataclass(slots=True)
class Extract:
    """What one source gave."""

    source: Source
    documents: list[Document] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)


def size(text: str) -> int:
    return len(text.encode())


def is_untranslated(block: Block) -> bool:
    """Whether a block on a Japanese page is still English prose, with Japanese at most in a reference to a section."""
    if block.kind is Kind.CODE:
        return False
    words = _WORD.findall(block.text)
    japanese = len(_JAPANESE.findall(block.text))
    if japanese:
        letters = sum(map(len, words))
        return letters >= 60 and japanese < 0.2 * letters
    return len(words) >= (3 if block.text.endswith((".", ":", "!", "?")) else 6)


def without_quotations(pages: dict[str, list[Block]]) -> dict[str, list[Block]]:
    """Pages without what they embed from a page that is there itself."""
    written = (block for blocks in pages.values() for block in blocks if not block.quoted)
    own = {block.text for block in written if block.kind is not Kind.HEADING}
    return {page: [b for b in blocks if not (b.quoted and b.text in own)] for page, blocks in pages.items()}


def without_empty_headings(blocks: Sequence[Block]) -> list[Block]:
    """Blocks without the headings that have nothing under them."""
    kept: list[Block] = []  # from the last to the first
    for block in reversed(blocks):
        below = kept[-1] if kept else None
        empty = below is None or (below.kind is Kind.HEADING and below.level <= block.level)
        if block.kind is not Kind.HEADING or not empty:
            kept.append(block)
    return kept[::-1]


def render(blocks: Iterable[Block]) -> str:
    """Plain text: paragraphs apart by an empty line, list items and table rows not."""
    text, before = "", None
    for block in blocks:
        if before is Kind.TERM:
            gap = " "
        else:
            gap = "\n" if before is block.kind and block.kind in {Kind.ITEM, Kind.ROW} else "\n\n"
        text += (gap if text else "") + _render_block(block)
        before = block.kind
    return text


def _render_block(block: Block) -> str:
    match block.kind:
        case Kind.HEADING:
            return f"{'#' * block.level} {block.text}"
        case Kind.ITEM:
            return f"- {block.text}"
        case Kind.TERM:
            return f"{block.text.rstrip(':：')}:"
        case Kind.CODE:
            return "\n".join(f"    {line}" if line else "" for line in block.text.splitlines())
        case Kind.ACCESS:
            return f"→ {block.text}"
        case Kind.PROSE | Kind.ROW:
            return block.text


def cut_documents(page_id: str, blocks: Sequence[Block]) -> Iterator[Document]:
    """A page's documents, whole: a new one begins at a heading once the one before has `DOCUMENT_BYTES`."""
    parts: list[list[Block]] = [[]]
    for block in blocks:
        starts = block.kind is Kind.HEADING and block.level <= DOCUMENT_LEVEL
        if starts and sum(size(b.text) for b in parts[-1]) >= DOCUMENT_BYTES:
            parts.append([])
        parts[-1].append(block)
    anchors: set[str] = set()
    for number, part in enumerate(part for part in parts if part):
        heading = next((block for block in part if block.kind is Kind.HEADING), Block(Kind.HEADING, page_id))
        anchor = heading.anchor if heading.anchor not in {"", *anchors} else str(number)
        anchors.add(anchor)
        yield Document(f"{page_id}#{anchor}", heading.text, render(part))


def extract(source: Source, pages: dict[str, list[Block]], seen: set[str]) -> Extract:
    """A source's documents, cleaned; `seen` holds the paragraphs that the corpus has in this language, and grows."""
    result = Extract(source)
    for page, blocks in without_quotations(pages).items():
        kept = []
        for block in blocks:
            if source.language == "ja" and is_untranslated(block):
                result.dropped.untranslated += size(block.text)
            elif block.text in seen:
                result.dropped.repeated += size(block.text)
            else:
                kept.append(block)
                if block.kind is not Kind.HEADING and size(block.text) >= REPEATED_BYTES:
                    seen.add(block.text)
        for document in cut_documents(f"{source.work}/{page}", without_empty_headings(kept)):
            if size(document.text) < LEAST_BYTES or not _is_in_language(document, source.language):
                result.dropped.short += size(document.text)
            else:
                result.documents.append(document)
    return result


def _is_in_language(document: Document, language: str) -> bool:
    if language != "ja":
        return True
    letters = sum(character.isalpha() for character in document.text)
    return len(_JAPANESE.findall(document.text)) >= JAPANESE_SHARE * letters


def read_pages(source: Source, deb: Path) -> dict[str, list[Block]]:
    """The blocks of each page, by the page's name."""
    name = re.compile(source.pages)
    pages: dict[str, list[Block]] = {}
    for path, html in read_files(deb, source.pages):
        match = name.search(path)
        assert match  # noqa: S101 - read_files yields nothing else
        pages[match[1]] = page_blocks(html)
    return pages


def write_corpus(found: dict[str, Package], debs: Path, out: Path) -> None:
    """Writes the corpus into the new folder `out`."""
    (out / "copyright").mkdir(parents=True)
    seen: dict[str, set[str]] = {source.language: set() for source in SOURCES}
    extracts, records = [], []
    for source in SOURCES:
        package = found[source.package]
        deb = download(package, debs)
        [(_, copyright_file)] = read_files(deb, rf"/usr/share/doc/{re.escape(package.name)}/copyright")
        (out / "copyright" / f"{package.name}.txt").write_text(copyright_file)
        result = extract(source, read_pages(source, deb), seen[source.language])
        if not result.documents:
            raise PackageError(f"{package.name} {package.version} has no text in pages like {source.pages!r}")
        extracts.append(result)
        records.append(_record_source(result, package, read_licence(package.name, copyright_file)))
    files = [
        _write_file(out, *key, extracts) for key in sorted({(source.language, source.domain) for source in SOURCES})
    ]
    record = {"sources": records, "files": files}
    (out / "sources.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _record_source(extract: Extract, package: Package, licence: str) -> dict[str, object]:
    return {
        "package": package.name,
        "version": package.version,
        "sha256": package.sha256,
        "licence": licence,
        "language": extract.source.language,
        "domain": extract.source.domain,
        "documents": len(extract.documents),
        "bytes": sum(size(document.text) for document in extract.documents),
        "dropped_bytes": {
            "untranslated": extract.dropped.untranslated,
            "repeated": extract.dropped.repeated,
            "short": extract.dropped.short,
        },
    }


def _write_file(out: Path, language: str, domain: str, extracts: Iterable[Extract]) -> dict[str, object]:
    chosen = [e.documents for e in extracts if (e.source.language, e.source.domain) == (language, domain)]
    documents = [document for documents in chosen for document in documents]
    lines = [json.dumps({"id": d.id, "title": d.title, "text": d.text}, ensure_ascii=False) + "\n" for d in documents]
    path = out / f"{domain}-{language}.jsonl"
    path.write_text("".join(lines))
    return {
        "file": path.name,
        "language": language,
        "domain": domain,
        "documents": len(documents),
        "bytes": sum(size(document.text) for document in documents),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def cache_folder() -> Path:
    return Path(os.environ.get("LLM_OPERATOR_CACHE") or Path.home() / ".cache" / "llm-operator")


def cache_key(found: dict[str, Package]) -> str:
    """A digest of everything that the corpus follows from: this code, and the packages' versions."""
    digest = hashlib.sha256()
    for module in (packages.__file__, html_text.__file__, __file__):
        digest.update(Path(module).read_bytes())
    for name in sorted(found):
        digest.update(f"{name}={found[name].version} {found[name].sha256}\n".encode())
    return digest.hexdigest()[:16]


def build_corpus() -> Path:
    """The cached folder with the corpus; it is made on the first call for this code and these packages.

    Raises:
        PackageError: a package can't be had, has no text, or has a licence that is not known to be free.

    """
    found = find_packages({source.package for source in SOURCES})
    corpus = cache_folder() / f"corpus-{cache_key(found)}"
    if not corpus.exists():
        debs = cache_folder() / "corpus-packages"
        debs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="corpus-unfinished-") as unfinished:
            write_corpus(found, debs, Path(unfinished) / "corpus")
            (Path(unfinished) / "corpus").rename(corpus)
    return corpus


def summary(corpus: Path) -> str:
    """What a corpus holds, for people: one line a file, and where the text is from."""
    record = json.loads((corpus / "sources.json").read_text())
    lines = [f"{'file':<18}{'documents':>10}{'MB':>7}  from"]
    for entry in record["files"]:
        chosen = [s for s in record["sources"] if (s["language"], s["domain"]) == (entry["language"], entry["domain"])]
        works = ", ".join(f"{source['package']} ({source['licence']})" for source in chosen)
        lines.append(f"{entry['file']:<18}{entry['documents']:>10}{entry['bytes'] / 1e6:>7.2f}  {works}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.corpus", description="Build the demo's corpus.")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    out: Path = parser.parse_args().out
    try:
        shutil.copytree(build_corpus(), out, dirs_exist_ok=True)
    except PackageError as error:
        sys.exit(f"demo.corpus: {error}")
    print(summary(out))


if __name__ == "__main__":
    main()
