"""Sources that are tokens already: shards that another training's data preparation has made, as `train/web-*.bin`.

They are taken as they are, linked where the file system can: neither filtered nor compared with other documents.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from llm_trainer.config import PrepareData, Source
from llm_trainer.data.files import TOKENS, Files, told
from llm_trainer.data.manifest import MANIFEST, DataManifest, Shard, SourceCounts, read_manifest
from llm_trainer.data.tokenizer import content_sha256
from llm_trainer.runtime.errors import ConfigurationError, DataError

Sources = list[tuple[Source, Files]]


def apart(sources: Sources) -> tuple[Sources, Sources]:
    """Those of text, and those of tokens. Raises DataError for one that is both."""
    for _, files in sources:
        suffixes = {path.suffix == TOKENS for path in files.paths}
        if len(suffixes) > 1:
            raise DataError(
                f"{files.field}: {files.uri} matches text and shards of tokens ({TOKENS}); make two sources of it"
            )
    tokens = [(source, files) for source, files in sources if files.paths[0].suffix == TOKENS]
    return [each for each in sources if each not in tokens], tokens


def refuse_other_tokenizers(config: PrepareData, tokens: Sources) -> None:
    """Raises ConfigurationError where the tokenizer is to be trained: the tokens are another's."""
    if tokens and config.tokenizer.train:
        source, files = tokens[0]
        folder = files.name(_folder(files.paths[0]))
        raise ConfigurationError(
            f"spec.tokenizer.train: source {source.name!r} is tokens already, which a new tokenizer would read as "
            f"others; set spec.tokenizer.uri: {folder}/{_manifest(files, files.paths[0]).tokenizer}"
        )


def take(
    source: Source, files: Files, folder: Path, tokenizer: Path, alive: Callable[[], None]
) -> tuple[list[Shard], SourceCounts]:
    """The shards as `folder` has them then, training ones first; `alive` is called after each.

    `tokenizer`: the folder of this training's. Raises DataError for a file that no manifest lists or that was altered,
    and for another tokenizer's tokens.
    """
    own = content_sha256(tokenizer)
    found = sorted(listed(files), key=lambda each: (each[1].split != "train", each[1].file))
    shards: list[Shard] = []
    for path, shard in found:
        other = _folder(path) / _manifest(files, path).tokenizer
        with told(files.field, files.name(other)):
            sha256 = content_sha256(other)
        if sha256 != own:
            raise DataError(
                f"{files.field}: {files.name(path)} has tokens of the tokenizer sha256:{sha256}, and this training's "
                f"is sha256:{own}; set spec.tokenizer.uri: {files.name(other)}, or prepare the text anew"
            )
        number = sum(one.split == shard.split for one in shards)
        name = f"{shard.split}/{source.name}-{number:05}{TOKENS}"
        with told(files.field, files.name(path)):
            _take_file(files, path, shard, folder / name)
        labels = {"source": source.name, "language": source.language, "domain": source.domain}
        shards.append(shard.model_copy(update={"file": name, **labels, "license": source.license or shard.license}))
        alive()
    licences = sorted({shard.license for shard in shards if shard.license})
    counts = SourceCounts(
        name=source.name, uri=source.uri, language=source.language, domain=source.domain,
        license=source.license or " AND ".join(licences), files=len(files.paths),
        documents=sum(shard.documents for shard in shards), bytes=sum(shard.bytes for shard in shards),
    )  # fmt: skip
    return shards, counts


def listed(files: Files) -> Iterator[tuple[Path, Shard]]:
    """Each file, and what its manifest says of it. Raises DataError for one that is in none."""
    for path in files.paths:
        name = path.relative_to(_folder(path)).as_posix()
        shard = next((shard for shard in _manifest(files, path).shards if shard.file == name), None)
        if shard is None:
            raise DataError(
                f"{files.field}: {files.name(path)} is no shard of {files.name(_folder(path) / MANIFEST)}; narrow the "
                "glob to those that data preparation has written"
            )
        yield path, shard


def _folder(path: Path) -> Path:
    """Of the prepared data that a shard is a part of: `train/web-00000.bin` lies two below."""
    return path.parent.parent


def _manifest(files: Files, path: Path) -> DataManifest:
    file = _folder(path) / MANIFEST
    with told(files.field, files.name(file)):
        manifest = read_manifest(_folder(path))
        if manifest is None:
            raise DataError(
                f"{files.field}: {files.name(path)} is no shard of prepared data: there is no {files.name(file)}. "
                "Tokens are read from a training's folder `data` alone, such as pvc://CLAIM/RUN/data/train/web-*.bin"
            )
    return manifest


def _take_file(files: Files, path: Path, shard: Shard, to: Path) -> None:
    """And the ends of its documents beside it."""
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != shard.sha256:
            raise DataError(
                f"{files.field}: {files.name(path)} is not as its data preparation wrote it: its sha256 differs; "
                "restore it, or prepare the text anew"
            )
    ends = path.with_suffix(".idx")
    if ends.stat().st_size != shard.documents * 8:
        raise DataError(f"{files.field}: {files.name(ends)} is not as its data preparation wrote it; restore it")
    to.parent.mkdir(parents=True, exist_ok=True)
    for origin, place in ((path, to), (ends, to.with_suffix(".idx"))):
        with suppress(OSError):  # another claim, or a file system without links
            os.link(origin.resolve(), place)
            continue
        shutil.copyfile(origin, place)
