"""How fast data preparation is and what memory it takes, beside datasets.map and datatrove on the same steps.

    python -m tests.bench preparation [--megabytes 20] [--datatrove PYTHON] [--curve 20,200] [--quality]

Steps: read JSONL, drop nothing or (--quality) what Gopher's rules drop, tokenise with the same tokenizer, write the
tokens. One process and one thread each, MB of text in a second of CPU (user + system, of the process and its
children) but those that the same takes of 1 MB, the runs one after the other, twice. PYTHON: of an environment that
has datatrove, which is no dependency.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llm_trainer.config import Data, PrepareData, Quality, Source, Tokenizer, TrainTokenizer

RUNS = 2
SMALL_BYTES = 1_000_000  # of a corpus by which it is known what a start costs
GOPHER: dict[str, dict[str, object]] = {"gopher": {}, "repetition": {}}
DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
corpus, tokenizer, out, quality = sys.argv[1:]
filters = [GopherRepetitionFilter(), GopherQualityFilter()] if quality == "1" else []
steps = [JsonlReader(corpus, glob_pattern="*.jsonl"), *filters,
         DocumentTokenizer(out, tokenizer_name_or_path=tokenizer + "/tokenizer.json", eos_token="<|endoftext|>",
                           local_working_dir=out + "/work", shuffle_documents=False, batch_size=1000)]
LocalPipelineExecutor(pipeline=steps, tasks=1, workers=1, logging_dir=out + "/log").run()
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench preparation")
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--datatrove", help="the python of an environment with datatrove")
    parser.add_argument("--curve", default="", help="megabytes, such as 20,200: memory alone")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument(
        "--one", nargs=3, help=argparse.SUPPRESS
    )  # a run in a process of its own: kind, folder, quality
    given = parser.parse_args(arguments)
    if given.one:
        kind, folder, quality = given.one
        (ours if kind == "ours" else mapped)(Path(folder), quality == "1")
        return
    with tempfile.TemporaryDirectory() as name:
        if given.curve:
            curve(Path(name), [int(size) for size in given.curve.split(",")], quality=given.quality)
        else:
            compare(Path(name) / "corpus", given.megabytes, given.datatrove, quality=given.quality)


def curve(folder: Path, sizes: list[int], *, quality: bool) -> None:
    print("| MB of text | greatest resident memory, MiB | MB in a CPU second |\n|---|---|---|")
    for size in sizes:
        made = corpus(folder / str(size), size)
        seconds, peak = run_in_child("ours", made, quality=quality)
        print(f"| {size} | {peak / 1024:.0f} | {size / seconds:.2f} |", flush=True)


def compare(folder: Path, size: int, datatrove: str | None, *, quality: bool) -> None:
    made = corpus(folder, size)
    small = corpus(folder.with_name(f"{folder.name}-small"), 0)
    kinds = ["ours", "datasets.map", *(["datatrove"] if datatrove else [])]
    print("| run | " + " | ".join(f"{kind}, MB in a CPU second" for kind in kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for run in range(RUNS):
        cells = []
        for kind in kinds:
            seconds, _ = run_in_child(kind, made, quality=quality, python=datatrove)
            seconds -= run_in_child(kind, small, quality=quality, python=datatrove)[0]
            cells.append(f"{(size - SMALL_BYTES / 1e6) / seconds:.2f}")
        print(f"| {run + 1} | {' | '.join(cells)} |", flush=True)


def run_in_child(kind: str, folder: Path, *, quality: bool, python: str | None = None) -> tuple[float, int]:
    """CPU seconds of it and its children, and the greatest resident memory of one of them in KiB."""
    out = tempfile.mkdtemp(dir=folder)
    flag = "1" if quality else "0"
    if kind == "datatrove":
        tokenizer = str(folder / "models/first/data/tokenizer")
        command = [str(python), "-c", DATATROVE, str(folder / "corpus"), tokenizer, out, flag]
    else:
        command = [sys.executable, "-m", "tests.bench", "preparation", "--one", kind, str(folder), flag]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    log = Path(out) / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, log.read_text()[-3000:]
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def corpus(folder: Path, megabytes: int) -> Path:
    """Of words with the frequencies of a language, in documents of 2 kB; and a tokenizer of them."""
    from llm_trainer.data.prepare import prepare

    chance = random.Random(0)
    words = ["".join(chance.choices("etaoinshrdlcumwfgypbvkjxqz", k=chance.randint(2, 9))) for _ in range(20_000)]
    words[:8] = ["the", "be", "to", "of", "and", "that", "have", "with"]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    (folder / "corpus").mkdir(parents=True)
    for number in range(max(1, megabytes // 100)):
        with (folder / f"corpus/{number:03}.jsonl").open("w") as stream:
            for text in documents(chance, words, weights, min(megabytes, 100) * 1_000_000 or SMALL_BYTES):
                stream.write(json.dumps({"text": text}) + "\n")
    (folder / "sample").mkdir()
    sample = folder / "sample/sample.jsonl"
    sample.write_text("".join((folder / "corpus/000.jsonl").read_text().splitlines(keepends=True)[:500]))
    source = Source(name="sample", uri="pvc://sample/sample.jsonl")
    tokenizer = Tokenizer(train=TrainTokenizer(vocabulary_size=8192))
    settings = PrepareData(data=Data(sources=[source]), tokenizer=tokenizer)
    prepare(settings, folder / "models/first/data", str(folder), "1", lambda _: None)
    return folder


def documents(chance: random.Random, words: list[str], weights: list[float], size: int) -> Iterator[str]:
    while size > 0:
        drawn = chance.choices(words, weights, k=350)
        text = "\n\n".join(" ".join(drawn[at : at + 70]).capitalize() + "." for at in range(0, 350, 70))
        size -= len(text)
        yield text


def ours(folder: Path, quality: bool) -> None:
    from llm_trainer.data.prepare import prepare

    source = Source(name="bench", uri="pvc://corpus/*.jsonl", language="en")
    data = Data(sources=[source], quality=Quality.model_validate(GOPHER) if quality else None)
    settings = PrepareData(data=data, tokenizer=Tokenizer(uri="pvc://models/first/data/tokenizer"))
    run = f"run-{os.getpid()}"
    (folder / "models/.llm-operator").rename(folder / f"notes-{os.getpid()}")
    prepare(settings, folder / "models" / run / "data", str(folder), "1", lambda _: None)


def mapped(folder: Path, quality: bool) -> None:
    """The same steps by datasets, which writes Arrow; it has no filters of its own."""
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder / "models/first/data/tokenizer"))
    files = [str(path) for path in sorted((folder / "corpus").glob("*.jsonl"))]
    rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=tempfile.mkdtemp(dir=folder))
    if quality:
        from llm_trainer.data.quality.filters import filters_of, judged
        from llm_trainer.data.quality.text import Text

        filters = filters_of(Quality.model_validate(GOPHER), str(folder))
        rows = rows.filter(lambda text: all(not said.reason for *_, said in judged(filters, Text(text, "en"))),
                           input_columns=["text"])  # fmt: skip
    rows.map(
        lambda batch: {"input_ids": tokenizer(batch["text"], add_special_tokens=False)["input_ids"]},
        batched=True, remove_columns=["text"],
    )  # fmt: skip
