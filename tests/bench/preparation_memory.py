"""What memory data preparation takes of a corpus of some size, and how fast it is, by phase.

    python -m tests.bench preparation-memory [--megabytes 100,500,2000] [--train]

Half of the text is English-like and half Japanese-like: words drawn by their rank (Zipf), in documents of some kB, of
which one in 20 comes again as it was and one in 20 with a few words changed. Every phase is passed through: equal and
near duplicates, Gopher's rules, tokens, and with --train the tokenizer. One process with one thread. Anonymous memory
is what no file stands behind; what else is resident are libraries and pages of files, which the kernel takes back.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDS = 20_000
FILE_BYTES = 50_000_000
AGAIN, CHANGED = 20, 20  # one document in so many
QUALITY: dict[str, dict[str, object]] = {"gopher": {}, "nearDuplicates": {}}
MEASURED = ("RssAnon", "VmRSS")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench preparation-memory")
    parser.add_argument("--megabytes", default="100,500,2000")
    parser.add_argument("--train", action="store_true", help="train the tokenizer on the corpus too")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a folder: a run in a process of its own
    given = parser.parse_args(arguments)
    if given.one:
        one(Path(given.one), train=given.train)
        return
    print("| MB of text | documents | anonymous memory, MiB: most | resident, MiB: most | CPU s | by phase, MiB |")
    print("|---|---|---|---|---|---|")
    for size in map(int, given.megabytes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            documents = corpus(Path(name), size * 1_000_000)
            command = [sys.executable, "-m", "tests.bench", "preparation-memory", "--one", name]
            environment = {
                **os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"
            }  # fmt: skip
            command += ["--train"] if given.train else []
            said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            print(f"| {size} | {documents:,} | {said.strip().splitlines()[-1]}", flush=True)


def corpus(folder: Path, size: int) -> int:
    """Two sources below `folder`, which have so many bytes, and a tokenizer of their beginning. Returns documents."""
    (folder / "corpus").mkdir()
    count = 0
    for language in ("en", "ja"):
        left, number, texts = size // 2, 0, documents(language)
        while left > 0:
            with (folder / f"corpus/{language}-{number:03}.jsonl").open("w", encoding="utf-8") as stream:
                room = min(left, FILE_BYTES)
                while room > 0:
                    text = next(texts)
                    stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                    written = len(text.encode())
                    room, left, count = room - written, left - written, count + 1
            number += 1
    return count


def documents(language: str) -> Iterator[str]:
    chance = np.random.default_rng(len(language) + ord(language[0]))
    letters = np.array(
        list(
            "etaoinshrdlcumwfgypbvkjxqz"
            if language == "en"
            else "のにはをがとでもいうかきくけこさしすせそ日本語文書管理設定"
        )
    )
    words = ["".join(chance.choice(letters, chance.integers(2, 9))) for _ in range(WORDS)]
    if language == "en":
        words[:8] = ["the", "be", "to", "of", "and", "that", "have", "with"]
    ends = np.cumsum(1 / (np.arange(WORDS) + 3))
    held: list[list[str]] = []
    while True:
        drawn = [words[rank] for rank in np.searchsorted(ends, chance.random(350) * ends[-1])]
        held = [*held[-200:], drawn]
        kind = chance.integers(0, AGAIN * CHANGED)
        if kind % AGAIN == 0:
            drawn = held[chance.integers(0, len(held))]
        elif kind % AGAIN == 1:
            drawn = list(held[chance.integers(0, len(held))])
            for at in chance.integers(0, len(drawn), 4):
                drawn[at] = words[chance.integers(0, WORDS)]
        space, end = (" ", ".\n\n") if language == "en" else ("", "。\n\n")
        yield end.join(space.join(drawn[at : at + 50]) for at in range(0, 350, 50)) + end.strip()


def one(folder: Path, *, train: bool) -> None:
    from llm_trainer.config import Data, PrepareData, Quality, Source, Tokenizer, TrainTokenizer
    from llm_trainer.data.prepare import prepare

    names = {language: min((folder / "corpus").glob(f"{language}-*")) for language in ("en", "ja")}
    (folder / "sample").mkdir()
    for language, file in names.items():
        with file.open() as stream:
            (folder / f"sample/{language}.jsonl").write_text("".join(next(stream) for _ in range(200)))
    trained = Tokenizer(train=TrainTokenizer(vocabulary_size=8192))
    sample = Data(sources=[Source(name="sample", uri="pvc://sample/*.jsonl")])
    prepare(PrepareData(data=sample, tokenizer=trained), folder / "models/first/data", str(folder), "1", lambda _: None)

    sources = [Source(name=name, uri=f"pvc://corpus/{name}-*.jsonl", language=name) for name in ("en", "ja")]
    data = Data(sources=sources, quality=Quality.model_validate(QUALITY))
    tokenizer = trained if train else Tokenizer(uri="pvc://models/first/data/tokenizer")
    watch = Watch()
    before = time.process_time()
    prepare(
        PrepareData(data=data, tokenizer=tokenizer), folder / "models/run/data", str(folder), "1",
        lambda step: watch.at(step.phase),
    )  # fmt: skip
    watch.stop()
    most = {name: max(watch.most[name].values()) for name in MEASURED}
    phases = ", ".join(f"{phase} {size >> 10}" for phase, size in watch.most["RssAnon"].items())
    print(f"{most['RssAnon'] >> 10} | {most['VmRSS'] >> 10} | {time.process_time() - before:.0f} | {phases} |")


class Watch:
    """Looks at this process's memory 50 times a second."""

    def __init__(self) -> None:
        self._phase, self._ended = "Start", threading.Event()
        self.most: dict[str, dict[str, int]] = {name: {} for name in MEASURED}
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def at(self, phase: str) -> None:
        self._phase = phase

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            status = Path("/proc/self/status").read_text()
            for name in MEASURED:
                found = re.search(rf"{name}:\s+(\d+)", status)
                assert found
                held = self.most[name]
                held[self._phase] = max(held.get(self._phase, 0), int(found[1]))
