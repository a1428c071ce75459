"""A base of a hub, rows of a bucket, an adapter, and both served: nothing was copied onto a claim by hand."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.chat import ask

from llm_trainer.data.chat_template import CHAT_TEMPLATE
from tests.cluster.settings import HOST_IP
from tests.e2e.specs import REQUESTS, SERVING_RESOURCES
from tests.e2e.user import User, condition, stage
from tests.storage import hub_server, s3_server

TOKEN = "hf_sesame"  # of a private repository
MODEL = "hf://team/base"
CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}


@pytest.fixture(scope="module")
def hub(user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub_server.Hub]:
    """With a tiny llama, which who shows the token may read. On the bridge, where pods reach it."""
    folder = tmp_path_factory.mktemp("base")
    write_base(folder, user.folder("corpus") / "topics.jsonl")
    with hub_server.serving(HOST_IP) as found:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        found.repositories["team/base"] = hub_server.Repository(files, token=TOKEN)
        secret(user, "hub", {"HF_TOKEN": TOKEN})
        yield found


def write_base(folder: Path, text: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator([json.loads(line)["text"] for line in text.read_text().splitlines()[:20]], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    # Heads of 32: vLLM's attention on CPU has kernels for them.
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def bucket(user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a dataset in it."""
    with s3_server.serving(tmp_path_factory.mktemp("s3"), HOST_IP) as values:
        rows = (user.folder("corpus") / "chat.jsonl").read_text().splitlines()[:32]
        s3_server.store(values).put("chat/rows.jsonl", ("\n".join(rows) + "\n").encode())
        secret(user, "store", values)
        yield "s3://corpora/chat/*.jsonl"


def secret(user: User, name: str, values: dict[str, str]) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    user.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": user.namespace},
                        "data": data})  # fmt: skip


@pytest.mark.timeout(900)
def test_from_a_hub_and_a_bucket_to_an_answer(user: User, hub: hub_server.Hub, bucket: str) -> None:
    mirror = {"env": [{"name": "HF_ENDPOINT", "value": hub.url}]}
    spec: dict[str, Any] = {
        "resources": REQUESTS,
        "storage": CLAIM,
        "model": {"uri": MODEL},
        "credentials": [{"secretName": "hub", "for": "hf"}, {"secretName": "store", "for": "s3://corpora"}],
        "prepareData": {"pods": mirror},
        "stages": [
            {"name": "legal", "sft": {"dataset": {"uri": bucket}, "epochs": 1, "maxLength": 128}, "globalBatchSize": 8,
             "lora": {"rank": 8}, "precision": "float32", "optimizer": {"learningRate": 0.05}},
        ],
    }  # fmt: skip
    user.apply("LLMTraining", "legal", spec)
    serving: dict[str, Any] = {
        "model": {"uri": MODEL},
        "servedModelName": "base",
        "modelCache": CLAIM,
        "credentials": [{"secretName": "hub", "for": "hf"}],
        "pods": mirror,
        "adapters": [{"name": "legal", "training": {"name": "legal", "stage": "legal"}}],
        "resources": SERVING_RESOURCES,
    }
    status = user.until("ends", "llmtraining", "legal", lambda s: s["phase"] in ("Succeeded", "Failed"), 400)
    assert status["phase"] == "Succeeded", condition(status, "Failed")
    revisions = {one["uri"]: one["revision"] for one in stage(status, "data")["inputs"]}
    commit = hub.repositories["team/base"].commit
    assert revisions[MODEL] == commit
    assert stage(status, "legal")["result"]["base"].endswith(f"/.fetched/hf/models/team/base/{commit}")
    before = len(hub.served)

    user.apply("LLMServing", "legal", serving)
    status = user.until("serves", "llmserving", "legal", serves, 400)
    assert status["model"] == {"uri": MODEL, "revision": commit}
    assert len(hub.served) == before, "the cache of the training is that of the serving"
    with user.kubectl.forward("service/legal-serving", 80) as url:
        assert ask(url, "legal", "What is lambda?", max_tokens=8).finish_reason in ("stop", "length")
    kept = user.kubectl.run("get", "configmaps,pods,jobs,deployments,llmtrainings,llmservings,events", "-o", "json")
    assert TOKEN not in kept
    assert "sesame-sesame" not in kept


def serves(status: dict[str, Any]) -> bool:
    states = [adapter["state"] for adapter in status.get("adapters", ())]
    return status.get("phase") == "Ready" and states == ["Serving"]
