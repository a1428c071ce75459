"""The text that the training held out, as it was: what xz gets is what the model was measured on."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
from demo.kubectl import Kubectl
from demo.manifests import LOADER

from llm_trainer.data.manifest import read_manifest
from llm_trainer.data.tokenizer import load_tokenizer


def fetch(kubectl: Kubectl, data_folder: str, target: Path) -> None:
    """Copy manifest, tokenizer and held-out shards from the models claim."""
    target.mkdir(parents=True, exist_ok=True)
    names = ("manifest.json", "tokenizer", "validation")
    read = subprocess.Popen(
        [*kubectl.prefix, "exec", LOADER, "--", "tar", "-c", "-C", data_folder, *names], stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x", "-C", target], stdin=read.stdout, check=True)
    if read.wait():
        raise RuntimeError(f"the prepared data could not be read from {data_folder}")


def texts_by_language(data: Path) -> dict[str, list[str]]:
    """Every held-out document."""
    manifest = read_manifest(data)
    if manifest is None:
        raise FileNotFoundError(data / "manifest.json")
    tokenizer = load_tokenizer(data / manifest.tokenizer)
    texts: dict[str, list[str]] = defaultdict(list)
    for shard in manifest.shards:
        if shard.split != "validation" or not shard.tokens:
            continue
        tokens = np.fromfile(data / shard.file, dtype=np.dtype(manifest.dtype).newbyteorder("<"))
        ends = np.fromfile((data / shard.file).with_suffix(".idx"), dtype="<i8")
        begins = [0, *ends[:-1]]
        documents = [tokens[begin : end - 1].tolist() for begin, end in zip(begins, ends, strict=True)]
        texts[shard.language] += tokenizer.batch_decode(documents)
    return dict(texts)
