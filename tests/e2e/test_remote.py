"""A base of a hub, rows of a bucket, an adapter that is published to both, and all of it served from there: nothing
was copied onto a claim by hand.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.chat import ask

from llm_trainer.checkpoint.files import COMPLETE, MANIFEST
from llm_trainer.data.chat_template import CHAT_TEMPLATE
from llm_trainer.storage.publication import PublishedManifest
from tests.cluster.settings import HOST_IP
from tests.e2e.specs import REQUESTS, SERVING_RESOURCES
from tests.e2e.user import Manifest, User, condition, stage
from tests.storage import hub_server, s3_server

TOKEN = "hf_sesame"  # of a private repository
MODEL = "hf://team/base"
ROWS = "s3://corpora/chat/*.jsonl"
PUBLISHED = ("s3://corpora/published/legal", "hf://team/legal")
CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}
CREDENTIALS = [{"secretName": "hub", "for": "hf"}, {"secretName": "store", "for": "s3://corpora"}]


@pytest.fixture(scope="module")
def hub(user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub_server.Hub]:
    """With a tiny llama, which who shows the token may read. On the bridge, where pods reach it."""
    folder = tmp_path_factory.mktemp("base")
    write_base(folder, user.folder("corpus") / "topics.jsonl")
    with hub_server.serving(HOST_IP) as found:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        found.repositories["team/base"] = hub_server.Repository(files, token=TOKEN)
        found.writers[TOKEN] = "team"
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
def bucket(user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its folder. There is a dataset in it, ROWS."""
    folder = tmp_path_factory.mktemp("s3")
    with s3_server.serving(folder, HOST_IP) as values:
        rows = (user.folder("corpus") / "chat.jsonl").read_text().splitlines()[:32]
        s3_server.store(values).put("chat/rows.jsonl", ("\n".join(rows) + "\n").encode())
        secret(user, "store", values)
        yield folder / "data" / s3_server.BUCKET


def secret(user: User, name: str, values: dict[str, str]) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    user.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": user.namespace},
                        "data": data})  # fmt: skip


def adapting(mirror: Manifest) -> Manifest:
    """A training whose adapter goes to a bucket and to the hub."""
    return {
        "resources": REQUESTS,
        "storage": CLAIM,
        "model": {"uri": MODEL},
        "credentials": CREDENTIALS,
        "prepareData": {"pods": mirror},
        "stages": [
            {"name": "legal", "sft": {"dataset": {"uri": ROWS}, "epochs": 1, "maxLength": 128}, "globalBatchSize": 8,
             "lora": {"rank": 8}, "precision": "float32", "optimizer": {"learningRate": 0.05}},
        ],
        "publish": [{"to": to} for to in PUBLISHED],
    }  # fmt: skip


def serving_of(mirror: Manifest, adapters: list[Manifest]) -> Manifest:
    return {
        "model": {"uri": MODEL},
        "servedModelName": "base",
        "modelCache": CLAIM,
        "credentials": CREDENTIALS,
        "pods": mirror,
        "adapters": adapters,
        "resources": SERVING_RESOURCES,
    }


@pytest.mark.timeout(900)
def test_from_a_hub_and_a_bucket_to_an_answer(user: User, hub: hub_server.Hub, bucket: Path) -> None:
    mirror = {"env": [{"name": "HF_ENDPOINT", "value": hub.url}]}
    user.apply("LLMTraining", "legal", adapting(mirror))
    status = user.until("ends", "llmtraining", "legal", lambda s: s["phase"] in ("Succeeded", "Failed"), 400)
    assert status["phase"] == "Succeeded", condition(status, "Failed")
    revisions = {one["uri"]: one["revision"] for one in stage(status, "data")["inputs"]}
    commit = hub.repositories["team/base"].commit
    assert revisions[MODEL] == commit
    assert stage(status, "legal")["result"]["base"].endswith(f"/.fetched/hf/models/team/base/{commit}")
    before = len(hub.served)

    of_training = {"name": "legal", "training": {"name": "legal", "stage": "legal"}}
    user.apply("LLMServing", "legal", serving_of(mirror, [of_training]))
    is_published(user, hub, bucket)
    status = user.until("serves", "llmserving", "legal", serves, 400)
    assert status["model"] == {"uri": MODEL, "revision": commit}
    of_base = [path for path, _, _ in hub.served[before:] if "/team/base/" in path]
    assert not of_base, "the cache of the training is that of the serving"
    status = user.until("tells of its start", "llmserving", "legal", lambda s: s.get("startup"), 30)
    start = {part: seconds for part, seconds in status["startup"].items() if part.endswith("Seconds")}
    assert set(start) == {"importSeconds", "loadSeconds", "warmUpSeconds", "totalSeconds"}, status["startup"]
    assert status["inputs"][0]["fetchSeconds"] >= 0

    published = [{"name": f"legal-{to[:2]}", "uri": to, "rank": 8} for to in PUBLISHED]
    user.apply("LLMServing", "legal", serving_of(mirror, published))
    status = user.until("serves what was published", "llmserving", "legal",
                        lambda s: serves(s) and {one["uri"] for one in s["adapters"]} == {*PUBLISHED}, 400)  # fmt: skip
    with user.kubectl.forward("service/legal-serving", 80) as url:
        told = {ask(url, f"legal-{to[:2]}", "What is lambda?", max_tokens=8).text for to in PUBLISHED}
        assert len(told) == 1, "of one adapter from two places"
    kept = user.kubectl.run("get", "configmaps,pods,jobs,deployments,llmtrainings,llmservings,events", "-o", "json")
    assert TOKEN not in kept
    assert "sesame-sesame" not in kept


def is_published(user: User, hub: hub_server.Hub, bucket: Path) -> None:
    """What the training tells is what lies in the bucket and in the repository, whole."""
    status = user.until("is published", "llmtraining", "legal",
                        lambda s: condition(s, "Published").get("status") == "True", 200)  # fmt: skip
    result = stage(status, "legal")["result"]
    told = {one["to"]: one for one in status["publications"]}
    assert {one["state"] for one in told.values()} == {"Published"}
    assert told[PUBLISHED[1]]["revision"] == hub.repositories["team/legal"].commit
    assert hub.repositories["team/legal"].private
    source = Path(str(user.folder("models")), result["uri"].removeprefix("pvc://models/"))
    files = {path.name for path in source.iterdir()} - {COMPLETE, MANIFEST}
    assert "adapter_model.safetensors" in files
    for at in (bucket / "published" / "legal", hub.repositories["team/legal"].files):
        found = {path.name: path.read_bytes() for path in at.iterdir()} if isinstance(at, Path) else at
        assert {*found} - {".gitattributes"} == {*files, MANIFEST}
        assert {name: found[name] for name in files} == {name: (source / name).read_bytes() for name in files}
        manifest = PublishedManifest.model_validate_json(found[MANIFEST])
        assert manifest.digest() == result["digest"]


def serves(status: dict[str, Any]) -> bool:
    states = {adapter["state"] for adapter in status.get("adapters", ())}
    return status.get("phase") == "Ready" and states == {"Serving"}
