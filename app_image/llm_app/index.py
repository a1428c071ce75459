"""``python -m llm_app.index``: makes one revision of a knowledge base, checks it and tells its figures."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_app.chunks import chunks
from llm_app.config import CONFIG_FOLDER, INDEX_FILE, IndexConfig
from llm_app.documents import DataError, Found, documents
from llm_app.last_word import ended, tell
from llm_app.store import Index, IndexDamagedError, StoredChunk, place_same, remove_others, same_as

MOST_CHUNKS = 500_000  # that a server keeps in memory
SHOWN = 3
Told = dict[str, object]  # figures of a revision, for its Job's last word


def make(config: IndexConfig) -> Told:
    """The figures of the index that is there in the end. One that is there already and whole is left as it is."""
    if config.store:
        return make_outside(config)
    folder = Path(config.folder) / config.revision
    told: Told = {}
    made = there(folder, config)
    if made is None:
        told = place(folder, config)
        made = Index.load(folder)
        check(made, config)
    same = same_as(folder)
    remove_others(folder.parent, [config.revision, *config.keep])
    told |= {"same": same} if same != config.revision else {}
    told |= {"dimensions": made.vectors.dimensions} if made.vectors else {}
    return {"documents": made.documents, "chunks": len(made.chunks), **told}


def make_outside(config: IndexConfig) -> Told:
    """In a store that isn't the pods' own. What it needs is imported where it is used."""
    from llm_app.revision import make_in

    assert config.store  # noqa: S101 -- the caller has looked
    if config.store.chroma:
        from llm_app.chroma_index import InChroma

        return make_in(InChroma.of(config), config, build)
    from llm_app.pgvector_index import InPostgres

    return make_in(InPostgres.of(config), config, build)


def place(folder: Path, config: IndexConfig) -> Told:
    """Makes it, from the revision that is used as far as that has it. Raises DataError or AwayError."""
    built, told = build(config)
    used = revision_in(folder.parent, config.used)
    if config.embedding:
        built = replace(built, space=config.embedding.space)
    if used and used.content == built.content and is_of_now(config, used):
        place_same(folder, used.revision)
        return told
    if config.embedding:
        from llm_app.embedded import embedded, forget, known_of

        built, count = embedded(built, config, known_of(used, config.embedding), folder.parent)
        built.save(folder)
        forget(folder.parent)
        return {**told, "embedded": count}
    built.save(folder)
    return told


def is_of_now(config: IndexConfig, used: Index) -> bool:
    """Whether its vectors are of the model that is served, which may have changed behind its name."""
    if config.embedding is None:
        return True
    from llm_app.embedded import still_same

    return used.vectors is not None and still_same(used.vectors, config)


def revision_in(folder: Path, name: str) -> Index | None:
    """None if there is none that is whole: then all is made anew."""
    try:
        return Index.load(folder / same_as(folder / name)) if name else None
    except (OSError, IndexDamagedError):
        return None


def there(folder: Path, config: IndexConfig) -> Index | None:
    """The one that another pod has made, if it is whole. One that is damaged serves nobody: it is made anew."""
    try:
        made = Index.load(folder)
        check(made, config)
    except FileNotFoundError:
        if folder.exists():
            shutil.rmtree(folder)
        return None
    except IndexDamagedError as error:
        print(f"made anew: {error}", flush=True)
        shutil.rmtree(folder)
        return None
    return made


def build(config: IndexConfig) -> tuple[Index, Told]:
    found = Found()
    listed: list[StoredChunk] = []
    count = 0
    for document in all_documents(config, found):
        count += 1
        listed += document
        if len(listed) > MOST_CHUNKS:
            raise DataError(
                f"has more than {MOST_CHUNKS:,} chunks, which no server holds; use larger ones, or less text"
            )
    if not listed:
        raise DataError("no document has any text; see spec.knowledge[].sources")
    told: Told = {}
    if found.empty:
        told["empty"] = [*found.empty[:SHOWN], *([f"and {len(found.empty) - SHOWN} more"] * (len(found.empty) > SHOWN))]
    if found.others:
        told["notRead"] = dict(sorted(found.others.items(), key=lambda one: -one[1])[:SHOWN])
    return Index.of(config.knowledge, config.revision, listed, count), told


def all_documents(config: IndexConfig, found: Found) -> Iterator[list[StoredChunk]]:
    """The chunks of each document that has a text."""
    for source in config.sources:
        for document in documents(source, found):
            metadata = {**source.metadata, **document.metadata}
            made = [
                StoredChunk(source.name, document.title, chunk.heading, chunk.text, metadata)
                for chunk in chunks(document.text, config.chunking)
            ]
            if made:
                yield made


def check(made: Index, config: IndexConfig) -> None:
    """That it is what was asked for, and finds what it has."""
    revision = same_as(Path(config.folder) / config.revision)
    if (made.knowledge, made.revision) != (config.knowledge, revision):
        raise IndexDamagedError(f"the folder of {config.revision} holds {made.knowledge} {made.revision}")
    first = made.chunks[0]
    if made.keywords.spans and not made.search(first.searched, 1):
        raise IndexDamagedError(f"revision {made.revision} does not find its own first chunk")


def main() -> int:
    code, word = run(Path(CONFIG_FOLDER) / INDEX_FILE)
    tell(word)
    return code


def run(file: Path) -> tuple[int, Told]:
    """The exit code and the last word."""
    return ended(lambda: make(IndexConfig.model_validate_json(file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    sys.exit(main())
