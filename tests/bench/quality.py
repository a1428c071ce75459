"""Whether quality pays: a model on the demo's corpus with planted noise, as it is and filtered. Prints a table.

    python -m tests.bench quality CORPUS [--seeds 3] [--steps 400]

CORPUS is the folder that `python -m demo.corpus` wrote. Half of the text is noise: menus and cookie notices, a language
that is none (each letter of English moved by 13), a line again and again, edited copies. The same model sees the same
number of tokens of either; what is compared are held-out documents of the manuals, which neither has.
"""

from __future__ import annotations

import argparse
import codecs
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llm_trainer.config import Data, PrepareData, Quality, Source, Tokenizer, TrainTokenizer
from llm_trainer.data.manifest import TOKENIZER, DataManifest
from llm_trainer.data.prepare import prepare
from llm_trainer.data.tokenizer import encode, load_tokenizer

LANGUAGES = ("en", "ja")
DOCUMENTS, HELD_OUT = 260, 40  # of each language
LENGTH, BATCH = 128, 8
FILTERS = {
    "language": {},
    "gopher": {"minimumWords": 20, "maximumSymbolRatio": 1, "minimumAlphabeticWords": 0.5},
    "repetition": {"maximumDuplicateNgrams": [0.4] * 6},
    "nearDuplicates": {"threshold": 0.7},
}
MENU = {
    "en": "Home | Products | About us | Log in\n© {n} All rights reserved - Terms - Cookies\n>> {n} <<\n",
    "ja": "ホーム | 製品 | 会社概要 | 採用情報 | ログイン\n© {n} 無断転載禁止 - 規約 - クッキー\n>> {n} <<\n",
}  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench quality")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args(arguments)
    print("| seed | raw: documents | tokens | bits per byte | filtered: documents | tokens | bits per byte |")
    print("|---|---|---|---|---|---|---|")
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            row = compare(given.corpus, Path(folder), seed, given.steps)
        print(f"| {seed} | {' | '.join(row)} |", flush=True)


def compare(corpus: Path, volumes: Path, seed: int, steps: int) -> list[str]:
    held_out = write_corpus(corpus, volumes, seed)
    raw_tokenizer = Tokenizer(train=TrainTokenizer(vocabulary_size=2048))
    cells: list[str] = []
    for name, quality in (("raw", None), ("filtered", Quality.model_validate(FILTERS))):
        sources = [Source(name=each, uri=f"pvc://corpus/{each}.jsonl", language=each) for each in LANGUAGES]
        # The same tokenizer for both, that of the raw text, so that the data alone differs.
        tokenizer = raw_tokenizer if quality is None else Tokenizer(uri=f"pvc://raw/data/{TOKENIZER}")
        data = Data(sources=sources, quality=quality, validation_fraction=0.01)
        folder = volumes / name / "data"
        manifest = prepare(PrepareData(data=data, tokenizer=tokenizer), folder, str(volumes), "1", lambda _: None)
        documents = sum(source.documents for source in manifest.sources)
        figure = bits_per_byte(train(folder, manifest, seed, steps), folder, held_out)
        cells += [f"{documents:,}", f"{manifest.tokens('train'):,}", f"{figure:.3f}"]
    return cells


def write_corpus(corpus: Path, volumes: Path, seed: int) -> list[str]:
    """Text and as much noise, mixed, of each language. Returns the held-out documents."""
    chance = random.Random(seed)
    (volumes / "corpus").mkdir()
    held_out: list[str] = []
    for language in LANGUAGES:
        lines = (corpus / f"manual-{language}.jsonl").read_text().splitlines()
        texts = [json.loads(line)["text"][:3000] for line in chance.sample(lines, DOCUMENTS + HELD_OUT)]
        held_out += texts[:HELD_OUT]
        clean = texts[HELD_OUT:]
        wanted, noise = sum(map(len, clean)), list[str]()
        for made in noises(clean, language, chance):
            if sum(map(len, noise)) >= wanted:
                break
            noise.append(made)
        mixed = [*clean, *noise]
        chance.shuffle(mixed)
        rows = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in mixed)
        (volumes / "corpus" / f"{language}.jsonl").write_text(rows)
    return held_out


def noises(clean: list[str], language: str, chance: random.Random) -> Iterator[str]:
    while True:
        yield "".join(MENU[language].format(n=chance.randrange(10**6)) for _ in range(12))
        yield codecs.encode(" ".join(chance.sample(ENGLISH_WORDS, 250)), "rot13")
        yield f"{chance.choice(clean).strip().splitlines()[-1][:80]} {chance.randrange(10**6)}\n" * 30
        words = list(chance.choice(clean))
        for _ in range(len(words) // 300):  # an edited copy
            words[chance.randrange(len(words))] = chance.choice(words)
        yield "".join(words)


ENGLISH_WORDS = 8 * [
    "which", "there", "about", "would", "their", "these", "other", "could", "after", "first", "where", "those",
    "being", "every", "great", "might", "under", "while", "still", "found", "never", "three", "water", "again",
    "place", "right", "think", "years", "large", "small", "house", "world", "point", "group", "order", "power",
    "state", "number", "people", "system", "between", "through", "another", "because", "without", "against",
    "however", "program", "general", "during", "service", "second",
]  # fmt: skip


def train(folder: Path, manifest: DataManifest, seed: int, steps: int) -> Any:
    files = [folder / shard.file for shard in manifest.shards if shard.split == "train"]
    tokens = np.concatenate([np.fromfile(file, dtype=manifest.dtype) for file in files]).astype(np.int64)
    rows = len(tokens) // LENGTH
    order = np.concatenate(
        [np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(1 + steps * BATCH // rows)]
    )

    def batch(step: int) -> npt.NDArray[np.int64]:
        places = order[step * BATCH : (step + 1) * BATCH, None] * LENGTH + np.arange(LENGTH)
        rows: npt.NDArray[np.int64] = tokens[places]
        return rows

    return learn(manifest.vocabulary_size, batch, seed, steps)


def learn(vocabulary: int, batch: Callable[[int], npt.NDArray[np.int64]], seed: int, steps: int) -> Any:
    """A small Llama, from the rows (BATCH, LENGTH) of each step."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=128, intermediate_size=344, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=LENGTH, tie_word_embeddings=True,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (1 - 0.9 * step / steps)
        rows = torch.from_numpy(batch(step))
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def bits_per_byte(model: Any, folder: Path, texts: list[str]) -> float:
    """In windows of the model's length; each document's first token is given."""
    tokenizer = load_tokenizer(folder / TOKENIZER, "the tokenizer")
    nats = 0.0
    for ids in encode(tokenizer, texts):
        for start in range(0, len(ids), LENGTH - 1):
            window = torch.tensor([ids[start : start + LENGTH]])
            if window.shape[1] > 1:
                nats += float(model(input_ids=window, labels=window).loss) * (window.shape[1] - 1)
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)
