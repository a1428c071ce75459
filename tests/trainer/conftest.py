"""A small corpus, prepared once by the real data stage, and stages on it."""

from __future__ import annotations

import json
import pydoc_data.topics
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig
from tests.trainer.online import WORDS, write_prompts
from tests.trainer.pods import Pods

MODEL = {
    "architecture": {
        "family": "llama",
        "config": {
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
        },
    }
}
PRETRAIN = {
    "sequenceLength": 64,
    "steps": 20,
    "globalBatchSize": 8,
    "microBatchSize": 2,
    "precision": "float32",
    "optimizer": {"learningRate": 0.003},
    "checkpoint": {"everySteps": 5},
    "evaluation": {"everySteps": 10},
}
SFT = {
    "dataset": {"uri": "pvc://corpus/chat.jsonl", "validationFraction": 0.1},
    "epochs": 2,
    "maxLength": 64,
    "globalBatchSize": 8,
    "microBatchSize": 2,
    "precision": "float32",
    "optimizer": {"learningRate": 0.001, "weightDecay": 0.0},
    "checkpoint": {"everySteps": 5},
    "evaluation": {"everySteps": 10},
}

Stage = Callable[..., StageConfig]
RunPods = Callable[..., Pods]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volumes root with claim `models`, whose run `run` has prepared data of Python's own documentation."""
    return prepare(tmp_path_factory.mktemp("volumes"), tmp_path_factory.mktemp("pods"))


def prepare(volumes: Path, pods: Path) -> Path:
    """The same in a folder of the caller's; `pods`: for logs."""
    corpus = volumes / "corpus"
    corpus.mkdir(parents=True)
    texts = list(pydoc_data.topics.topics.values())
    for name, part in (("even", texts[::2]), ("odd", texts[1::2])):
        (corpus / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    rows = [
        {"messages": [{"role": "user", "content": f"What is {key}?"}, {"role": "assistant", "content": text[:80]}]}
        for key, text in pydoc_data.topics.topics.items()
    ]
    (corpus / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [
        {"name": name, "uri": f"pvc://corpus/{name}.jsonl", "language": language}
        for name, language in (("even", "en"), ("odd", "en-GB"))
    ]
    settings = {
        "data": {"sources": sources, "validationFraction": 0.1},
        "tokenizer": {"train": {"vocabularySize": 1024}},
        "datasets": [{"field": "spec.stages[1].sft.dataset.uri", "uri": "pvc://corpus/chat.jsonl",
                      "anyOfColumns": [["messages"], ["prompt", "completion"]]}],
    }  # fmt: skip
    config = stage_config(volumes, "data", nodes=1, prepareData=settings)
    Pods(config, pods).run()
    return volumes


def stage_config(volumes: Path, stage: str, *, nodes: int = 2, attempt: int = 1, **settings: Any) -> StageConfig:
    return StageConfig.model_validate(
        {
            "training": "test",
            "namespace": "default",
            "uid": "0",
            "stage": stage,
            "attempt": attempt,
            "nodes": nodes,
            "processesPerNode": 1,
            "device": "cpu",
            "volumesRoot": str(volumes),
            "runUri": "pvc://models/run",
            **settings,
        }
    )


@pytest.fixture(scope="session")
def base(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a pretrained model."""
    config = stage_config(prepared, "base", model=MODEL, pretrain=PRETRAIN)
    progress = Pods(config, tmp_path_factory.mktemp("pods"), warm=True).run()
    assert progress.result
    return progress.result.uri


@pytest.fixture(scope="session")
def prompts(prepared: Path) -> str:
    """The URI of 64 prompts."""
    return write_prompts(prepared)


@pytest.fixture(scope="session")
def pairs(prepared: Path) -> str:
    """The URI of 160 pairs: both answers have the same words around one that is good or bad."""
    draw = random.Random(0)
    rows = []
    for _ in range(160):
        question, before, after = draw.choice(WORDS), draw.choice(WORDS), draw.choice(WORDS)
        chosen, rejected = (f"{before} {word} {after}" for word in ("good", "bad"))
        rows.append({"prompt": f"What is a {question}? ", "chosen": chosen, "rejected": rejected})
    (prepared / "corpus" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "pvc://corpus/pairs.jsonl"


_owners: dict[str, str] = {}  # of stages in the one run folder: the test of each


@pytest.fixture
def pretrain(prepared: Path, request: pytest.FixtureRequest) -> Stage:
    """`pretrain(stage, steps=…, attempt=…, nodes=…)`: a pretrain stage's configuration.

    The file's name goes before the stage's: which files share a process, and so the run folder, is not theirs to know.
    """
    file = request.path.stem.removeprefix("test_").replace("_", "-")
    test = request.node.nodeid.partition("[")[0]

    def make(stage: str, *, nodes: int = 2, attempt: int = 1, model: Any = None, **settings: Any) -> StageConfig:
        owner = _owners.setdefault(f"{file}-{stage}", test)
        assert owner == test, f"the stage {stage} is that of {owner}: take another name"
        return stage_config(
            prepared,
            f"{file}-{stage}",
            nodes=nodes,
            attempt=attempt,
            model=model or MODEL,
            pretrain={**PRETRAIN, **settings},
        )

    return make


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[RunPods]:
    """`pods(config)`: its pods, not yet started; ended with the test. `warm=False` for what is about the start."""
    made: list[Pods] = []

    def make(config: StageConfig, *, warm: bool = True, **environment: str) -> Pods:
        made.append(Pods(config, tmp_path, environment, warm))
        return made[-1]

    yield make
    for one in made:
        one.kill()
