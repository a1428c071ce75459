"""A training whose model and data lie on a hub: data preparation fetches them, the stages read them on the claim."""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig, local_path
from llm_trainer.protocol import ExitCode
from llm_trainer.storage.request import INPUTS
from tests.storage.hub_server import Hub, Repository, serving
from tests.trainer.conftest import SFT, RunPods, stage_config

CORPUS, CHAT, MODEL = "hf://datasets/team/data/corpus/*.jsonl", "hf://datasets/team/data/chat.jsonl", "hf://team/small"


@pytest.fixture
def hub(prepared: Path, base: str) -> Iterator[Hub]:
    with serving() as found:
        texts = [json.dumps({"text": text}) for text in pydoc_data.topics.topics.values()]
        data = {"corpus/a.jsonl": "\n".join(texts[::2]).encode(), "corpus/b.jsonl": "\n".join(texts[1::2]).encode()}
        chat = (prepared / "corpus" / "chat.jsonl").read_bytes()
        found.repositories["team/data"] = Repository({**data, "chat.jsonl": chat}, kind="datasets")
        folder = Path(local_path(base, str(prepared)))
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "COMPLETE"}
        found.repositories["team/small"] = Repository(files)
        yield found


def inputs(*named: tuple[str, str]) -> list[dict[str, str]]:
    return [{"field": f"field {index}", "uri": uri, "use": use} for index, (uri, use) in enumerate(named)]


def data_stage(volumes: Path, **settings: Any) -> StageConfig:
    named = inputs((MODEL, "model"), (MODEL, "tokenizer"), (CORPUS, "data"), (CHAT, "data"))
    prepare = {
        "tokenizer": {"uri": MODEL},
        "modelUri": MODEL,
        "data": {"sources": [{"name": "topics", "uri": CORPUS}], "validationFraction": 0.05},
        "datasets": [{"field": "spec.stages[0].sft.dataset.uri", "uri": CHAT, "anyOfColumns": [["messages"]]}],
        "models": [{"field": "spec.model.uri", "uri": MODEL}],
        "remote": named,
        **settings,
    }
    return stage_config(volumes, "data", nodes=1, prepareData=prepare)


def test_from_the_hub_to_a_result(hub: Hub, tmp_path: Path, pods: RunPods) -> None:
    volumes = tmp_path / "volumes"
    (volumes / "models").mkdir(parents=True)
    data = pods(data_stage(volumes), HF_ENDPOINT=hub.url)
    progress = data.run()
    assert progress.data
    told = [(each.uri, each.license) for each in progress.inputs]
    assert told == [(uri, "apache-2.0") for uri in (MODEL, CORPUS, CHAT)]
    assert progress.fetched_bytes == progress.fetch_bytes > 0
    assert [size.uri for size in progress.models] == [MODEL], "the operator knows it by the URI of the spec"
    told = json.loads((volumes / "models" / "run" / INPUTS).read_bytes())
    assert [(each["uri"], each["files"] > 0) for each in told] == [(u, True) for u in (MODEL, MODEL, CORPUS, CHAT)]
    asked = len(hub.asked)
    settings = {**SFT, "dataset": {"uri": CHAT}, "epochs": 1}
    chat = pods(stage_config(volumes, "chat", model={"uri": MODEL}, sft=settings), HF_ENDPOINT=hub.url)
    result = chat.run().result
    assert result
    assert len(hub.asked) == asked, "only data preparation needs a network"
    other = {**settings, "dataset": {"uri": "hf://datasets/team/data/other.jsonl"}}
    late = pods(stage_config(volumes, "late", nodes=1, model={"uri": MODEL}, sft=other), HF_ENDPOINT=hub.url).start()
    (last,) = late.wait()
    assert last.exit_code == ExitCode.CONFIGURATION
    assert "was named after the data had been prepared" in last.message


def test_a_corpus_is_read_where_it_lies(hub: Hub, tmp_path: Path, pods: RunPods) -> None:
    """By each pod of data preparation; of the corpus only what was listed comes to the claim, and the shards."""
    volumes = tmp_path / "volumes"
    (volumes / "models").mkdir(parents=True)
    source = {"field": "spec.data.sources[0].uri", "uri": CORPUS, "use": "data", "stream": True}
    corpus = {"sources": [{"name": "topics", "uri": CORPUS, "stream": True}], "validationFraction": 0.05}
    remote = [*inputs((MODEL, "model"), (MODEL, "tokenizer"), (CHAT, "data")), source]
    config = data_stage(volumes, data=corpus, remote=remote).model_copy(update={"nodes": 2})
    progress = pods(config, HF_ENDPOINT=hub.url).run()
    assert (progress.tokens or 0) > 10_000
    assert not list((volumes / "models" / ".fetched").rglob("[ab].jsonl"))
    assert list((volumes / "models" / "run" / "data" / "train").glob("topics-*.bin"))


def test_what_can_not_be_fetched_ends_data_preparation(hub: Hub, tmp_path: Path, pods: RunPods) -> None:
    (tmp_path / "volumes" / "models").mkdir(parents=True)
    config = data_stage(tmp_path / "volumes", remote=inputs(("hf://team/absent", "model")))
    (last,) = pods(config, HF_ENDPOINT=hub.url).start().wait()
    assert (last.exit_code, last.reason) == (ExitCode.DATA, "DataError")
    assert last.message.startswith("field 0: hf://team/absent: there is no such repository, or it is private; if it is")
