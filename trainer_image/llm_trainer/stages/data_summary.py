"""What data preparation tells of what it does and has made: percent, a line, figures, notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llm_trainer.config import PrepareData
from llm_trainer.data.files import TOKENS, Streams, find_files
from llm_trainer.data.manifest import DataManifest
from llm_trainer.data.progress import Step
from llm_trainer.data.rows import SUFFIXES
from llm_trainer.data.units import find_sources
from llm_trainer.protocol import DataFigures, DropCount, Notice, TokenCount


def percent(step: Step) -> int:
    """Each phase has the same part of it; a loaded tokenizer starts at that of the tokens."""
    share = step.done / max(1, step.total)
    return int(100 * (step.phases.index(step.phase) + share) / len(step.phases))


def linked_twice(settings: PrepareData, volumes_root: str, streams: Streams) -> list[Notice]:
    """Of files that a URI's glob finds by several names, and that are read once."""
    found = [files for _, files in find_sources(settings.data, volumes_root, streams)] if settings.data else []
    found += [find_files(check.uri, check.field, volumes_root, SUFFIXES) for check in settings.datasets]
    return [
        Notice(
            reason="LinkedTwice",
            message=f"{files.field}: {len(files.again)} names that match {files.uri} are links to files that match it "
            f"too, such as {files.again[0]}; each file is read once",
        )
        for files in found
        if files.again
    ]


def summary(manifest: DataManifest) -> str:
    """One line of counts, such as `14.6 MB, 4,378 documents, 3,001,284 tokens, 8,192 tokens of vocabulary`."""
    parts = [f"vocabulary of {manifest.vocabulary_size:,} tokens"]
    if manifest.sources:
        held_out = sum(shard.documents for shard in manifest.shards if shard.split == "validation")
        parts = [
            f"{sum(source.bytes for source in manifest.sources) / 1e6:.1f} MB",
            f"{sum(source.documents for source in manifest.sources):,} documents ({held_out:,} held out)",
            f"{manifest.tokens('train'):,} tokens to train on",
            *parts,
        ]
    dropped = {
        "duplicates": sum(source.duplicates for source in manifest.sources),
        "not UTF-8": sum(source.invalid for source in manifest.sources),
        "empty": sum(source.empty for source in manifest.sources),
        "by quality": sum(source.filtered for source in manifest.sources),
    }
    parts += [f"{count:,} {name} dropped" for name, count in dropped.items() if count]
    return ", ".join(parts)


def data_figures(manifest: DataManifest) -> DataFigures | None:
    """Tokens by domain and language, dropped documents by reason, most first."""
    if not manifest.sources:
        return None
    tokens: Counter[tuple[str, str]] = Counter()
    for shard in manifest.shards:
        tokens[shard.domain, shard.language] += shard.tokens
    dropped = Counter(manifest.quality.dropped if manifest.quality else {})
    dropped["duplicate"] = sum(source.duplicates for source in manifest.sources)
    dropped["empty"] = sum(source.empty for source in manifest.sources)
    dropped["notUtf8"] = sum(source.invalid for source in manifest.sources)
    return DataFigures(
        tokens=[
            TokenCount(domain=domain, language=language, tokens=count)
            for (domain, language), count in tokens.most_common()
        ],
        dropped=[DropCount(reason=reason, documents=count) for reason, count in dropped.most_common() if count],
        sources={name: manifest.train_tokens(name) for name in manifest.names},
    )


def notices(settings: PrepareData, manifest: DataManifest) -> list[Notice]:
    """What is no failure and yet may surprise."""
    found = [*without_held_out(manifest), *dropped_whole(manifest), *damaged(manifest)]
    if settings.data and settings.data.quality:
        found += [
            Notice(
                reason="NotFiltered",
                message=f"source {source.name!r} is tokens already: spec.data.quality does not apply to it",
            )
            for source in settings.data.sources
            if source.uri.endswith(TOKENS)
        ]
    wanted = settings.tokenizer.train
    if wanted and manifest.vocabulary_size < wanted.vocabulary_size:
        found.append(
            Notice(
                reason="SmallVocabulary",
                message=f"the corpus yields a vocabulary of {manifest.vocabulary_size} tokens, fewer than the "
                f"{wanted.vocabulary_size} of spec.tokenizer.train.vocabularySize",
            )
        )
    return found


def without_held_out(manifest: DataManifest) -> Iterator[Notice]:
    held_out = {shard.source for shard in manifest.shards if shard.split == "validation"}
    larger = "a larger spec.data.validationFraction"
    more_documents = "cutting it into several documents (a .txt file is one)"
    for source in manifest.sources:
        if source.name not in held_out and (source.documents or not source.filtered):
            yield Notice(
                reason="NothingHeldOut",
                message=f"source {source.name!r}: none of its {source.documents} documents is held out, so it has no "
                f"held-out figures; {more_documents if source.documents < 2 else larger} helps",
            )


def dropped_whole(manifest: DataManifest) -> Iterator[Notice]:
    for source in manifest.sources:
        if source.filtered and not source.documents:
            yield Notice(
                reason="SourceDropped",
                message=f"source {source.name!r}: all {source.filtered} documents were dropped by spec.data.quality; "
                "quality/report.html in the prepared data says by which filter",
            )


def damaged(manifest: DataManifest) -> Iterator[Notice]:
    for source in manifest.sources:
        if source.damaged:
            yield Notice(
                reason="DamagedFiles",
                message=f"source {source.name!r}: of {source.files} files {len(source.damaged)} of "
                f"{sum(each.bytes for each in source.damaged):,} bytes are damaged and were skipped from there on; "
                f"manifest.json of the prepared data names all. The first: {source.damaged[0].message}",
            )
