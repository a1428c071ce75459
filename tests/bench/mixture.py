"""Whether a temperature helps the smaller language: a model on two languages of which one has little text.

    python -m tests.bench mixture CORPUS [--seeds 3] [--steps 400] [--temperatures 1 0.3]

CORPUS is the folder that `python -m demo.corpus` wrote. English has ten times the documents of Japanese. The same model
sees the same number of tokens in each column; what is compared are held-out documents of both. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llm_trainer.config import Data, Mixture, PrepareData, Source, Tokenizer, TrainTokenizer
from llm_trainer.data.prepare import prepare
from llm_trainer.data.sequences import MixedSequences
from tests.bench.quality import BATCH, LENGTH, bits_per_byte, learn

DOCUMENTS, HELD_OUT = {"en": 300, "ja": 30}, 30
CHARACTERS = 3000  # of a document


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench mixture")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.3])
    given = parser.parse_args(arguments)
    print("| seed | α | share of ja | epochs of en, ja | bits per byte of ja | of en |")
    print("|---|---|---|---|---|---|")
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows = compare(given.corpus, Path(folder), seed, given.steps, given.temperatures)
        for row in rows:
            print(f"| {seed} | {' | '.join(row)} |", flush=True)


def compare(corpus: Path, volumes: Path, seed: int, steps: int, temperatures: list[float]) -> list[list[str]]:
    held_out = write_corpus(corpus, volumes, seed)
    sources = [Source(name=each, uri=f"pvc://corpus/{each}.jsonl", language=each) for each in DOCUMENTS]
    config = PrepareData(
        data=Data(sources=sources, validation_fraction=0.01),
        tokenizer=Tokenizer(train=TrainTokenizer(vocabulary_size=2048)),
    )
    folder = volumes / "run" / "data"
    manifest = prepare(config, folder, str(volumes), "1", lambda _: None)
    rows: list[list[str]] = []
    for temperature in temperatures:
        mixture = Mixture(temperature=temperature)
        sequences = MixedSequences(folder, LENGTH, seed, mixture, steps * BATCH, {})

        def batch(step: int, sequences: MixedSequences = sequences) -> npt.NDArray[np.int64]:
            indices = range(step * BATCH, (step + 1) * BATCH)
            return np.stack([sequences.row(index).tokens[1:] for index in indices])

        model = learn(manifest.vocabulary_size, batch, seed, steps)
        read = sequences.tokens_read(0, steps * BATCH)
        epochs = ", ".join(f"{passes:.1f}" for passes in sequences.epochs(read))
        figures = [f"{bits_per_byte(model, folder, held_out[language]):.3f}" for language in ("ja", "en")]
        rows.append([f"{temperature:g}", f"{read[1] / sum(read):.0%}".replace("%", " %"), epochs, *figures])
    return rows


def write_corpus(corpus: Path, volumes: Path, seed: int) -> dict[str, list[str]]:
    """Returns the held-out documents."""
    chance, held_out = random.Random(seed), dict[str, list[str]]()
    (volumes / "corpus").mkdir()
    for language, count in DOCUMENTS.items():
        lines = (corpus / f"manual-{language}.jsonl").read_text().splitlines()
        texts = [json.loads(line)["text"][:CHARACTERS] for line in chance.sample(lines, count + HELD_OUT)]
        held_out[language] = texts[:HELD_OUT]
        rows = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts[HELD_OUT:])
        (volumes / "corpus" / f"{language}.jsonl").write_text(rows)
    return held_out
