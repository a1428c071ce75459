"""Data preparation as a stage: what a user can get wrong ends it as a fault of the data, by its field and file."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from llm_trainer.config import StageConfig
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.tokenizer import load_tokenizer, train_tokenizer
from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.errors import ConfigurationError, DataError, classify
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.prepare_data import run
from tests.trainer.tiny import ALL, tiny

ROWS = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(20)]
TEXTS = [{"text": f"document {number} about apples and pears and other fruit"} for number in range(40)]
MODEL_FIELD, ROWS_FIELD = "spec.stages[0].model.uri", "spec.stages[0].sft.dataset.uri"
LONGEST = {"length": 1024, "lengthField": "spec.stages[0].sft.maxLength"}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The stage listens for SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def claims(volumes: Path) -> Path:
    """A corpus, a dataset and a model's folder, all as they should be."""
    for name, rows in (("a.jsonl", TEXTS), ("rows.jsonl", ROWS)):
        (volumes / "corpus" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny("llama", vocab_size=600, max_position_embeddings=2048).save_pretrained(volumes / "hub")
    return volumes


def prepare(volumes: Path, **settings: Any) -> Board:
    config = StageConfig.model_validate(
        {
            "training": "chat", "namespace": "team", "uid": "0", "stage": "data", "attempt": 1, "nodes": 1,
            "processesPerNode": 1, "device": "cpu", "volumesRoot": str(volumes), "runUri": "pvc://models/run",
            "prepareData": {
                "data": {"sources": [{"name": "a", "uri": "pvc://corpus/a*"}], "validationFraction": 0.2},
                "tokenizer": {"train": {"vocabularySize": 512}},
                "datasets": [
                    {"field": ROWS_FIELD, "uri": "pvc://corpus/rows*", "anyOfColumns": [["prompt", "completion"]]}
                ],
                "models": [{"field": MODEL_FIELD, "stage": "chat", "uri": "pvc://hub/.", **LONGEST}],
                **settings,
            },
        }
    )  # fmt: skip
    board = Board("data", 1)
    run(config, board)
    return board


def test_what_is_right(claims: Path) -> None:
    assert prepare(claims).progress.phase == "Done"


def test_the_sizes_of_models_are_told(claims: Path) -> None:
    """Of every model that the operator computes memory with, as transformers itself builds it."""
    architecture = {"family": "mistral", "config": {**ALL["mistral"], "sliding_window": None}}
    progress = prepare(claims, architecture=architecture, lengthField="spec.stages[0].x", length=128).progress
    sizes = {told.uri: told for told in progress.models}
    assert sizes.keys() == {"", "pvc://hub/."}
    vocabulary = len(load_tokenizer(claims / "models/run/data" / TOKENIZER))
    config = AutoConfig.for_model("mistral", **ALL["mistral"], vocab_size=vocabulary)
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)
    assert sizes[""].parameters == sum(weight.numel() for weight in made.parameters())
    assert (sizes[""].head, sizes[""].width) == (vocabulary * 32, 32)


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ({"family": "qwen2", "config": {"num_experts": 4}}, r"num_experts is not a key of Qwen2Config; remove it"),
        ({"family": "dots1", "config": {}}, r"spec\.model\.architecture: transformers makes no model of it, TypeError"),
        ({"family": "bert-large"}, r"spec\.model\.architecture\.family: transformers has no language model bert-large"),
        ({"family": "opt", "config": {"max_position_embeddings": 64}}, r"x 128 is beyond the model's 64 positions"),
    ],
)
def test_what_makes_no_model(claims: Path, architecture: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        prepare(claims, architecture=architecture, lengthField="spec.stages[0].x", length=128)


def cut_gzip(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl.gz").write_bytes(gzip.compress(json.dumps(TEXTS).encode())[:-9])


def plain_as_gzip(volumes: Path) -> None:
    (volumes / "corpus/rows.jsonl.gz").write_text(json.dumps(ROWS[0]))


def dangling(volumes: Path) -> None:
    (volumes / "corpus/rows-2.jsonl").symlink_to("../blobs/2")


def dangling_source(volumes: Path) -> None:
    (volumes / "corpus/a-2.jsonl").symlink_to("../blobs/2")


def pointer(volumes: Path) -> None:
    (volumes / "hub/model.safetensors").write_text(POINTER)


def pointer_of_rows(volumes: Path) -> None:
    (volumes / "corpus/rows-2.parquet").write_text(POINTER)


def not_finite(volumes: Path) -> None:
    change(volumes, lambda state: {name: tensor / 0 for name, tensor in state.items()})


def change(volumes: Path, how: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = volumes / "hub/model.safetensors"
    save_file(how(load_file(file)), file, {"format": "pt"})


def renamed(volumes: Path) -> None:
    change(volumes, lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()})


def configured(volumes: Path, **keys: Any) -> None:
    file = volumes / "hub/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def of_code_of_its_own(volumes: Path) -> None:
    configured(volumes, model_type="own", auto_map={"AutoConfig": "own.Config"})


def quantised(volumes: Path) -> None:
    configured(volumes, quantization_config={"quant_method": "gptq", "bits": 4})


def padding_beyond_embeddings(volumes: Path) -> None:
    configured(volumes, pad_token_id=600)


def attention_that_is_not_here(volumes: Path) -> None:
    configured(volumes, _attn_implementation="flash_attention_3")


def few_positions(volumes: Path) -> None:
    configured(volumes, max_position_embeddings=64)


def larger_tokenizer(volumes: Path) -> None:
    tokenizer = train_tokenizer(iter(["one two three"]), 512)
    tokenizer.add_tokens([f"[{number}]" for number in range(600)])
    tokenizer.save_pretrained(volumes / "hub")


def adapter_of_another_trainer(volumes: Path) -> None:
    for file in (volumes / "hub").iterdir():
        file.unlink()
    (volumes / "hub/adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/model"}')
    save_file({"a": torch.ones(3)}, volumes / "hub/adapter_model.safetensors")


def link_out(volumes: Path) -> None:
    (volumes / "secret").write_text("s")
    (volumes / "hub/tokenizer.json").symlink_to("../secret")


def deep(volumes: Path) -> None:
    (volumes / "corpus/rows.jsonl").write_text("[" * 100_000)


def utf_16(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl").write_text(json.dumps(TEXTS[0]), encoding="utf-16")


@pytest.mark.parametrize(
    ("spoil", "field", "says"),
    [
        (cut_gzip, "spec.data.sources[0].uri (source 'a'): pvc://corpus/a.jsonl.gz", "Truncated"),
        (plain_as_gzip, f"{ROWS_FIELD}: pvc://corpus/rows.jsonl.gz", "damaged or of another format"),
        (dangling, f"{ROWS_FIELD}: of 2 files", "lead nowhere"),
        (dangling_source, "spec.data.sources[0].uri (source 'a'): of 2 files", "lead nowhere"),
        (pointer, f"{MODEL_FIELD}: pvc://hub/.", "model.safetensors is a Git LFS pointer"),
        (pointer_of_rows, f"{ROWS_FIELD}: pvc://corpus/rows-2.parquet", "Git LFS pointer"),
        (not_finite, f"{MODEL_FIELD}: pvc://hub/.", "not finite"),
        (renamed, MODEL_FIELD, "lacks weights of its model"),
        (link_out, f"{MODEL_FIELD} pvc://hub/.", "leads out of the claim"),
        (deep, f"{ROWS_FIELD}: pvc://corpus/rows.jsonl, line 1", "can't be read"),
        (utf_16, "source 'a'", "looks like UTF-16"),
    ],
)
def test_what_is_wrong(claims: Path, spoil: Callable[[Path], None], field: str, says: str) -> None:
    spoil(claims)
    with pytest.raises(Exception, match=says) as error:
        prepare(claims)
    code, reason, message = classify(error.value)
    assert (code, reason) == (ExitCode.DATA, "DataError")
    assert message.startswith(field), message


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (of_code_of_its_own, "no model that transformers has"),
        (quantised, "quantised by gptq"),
        (padding_beyond_embeddings, "transformers builds no such model: Padding_idx must be within"),
        (attention_that_is_not_here, "transformers builds no such model"),
        (few_positions, "spec.stages\\[0\\].sft.maxLength 1024 is beyond the model's 64 positions"),
        (larger_tokenizer, "tokens and the model 600 embeddings"),
        (adapter_of_another_trainer, "does not say which model it belongs to; merge it"),
    ],
)
def test_models_that_no_stage_could_start_from(claims: Path, spoil: Callable[[Path], None], says: str) -> None:
    """Of a stage's own model too, and before its GPUs are taken."""
    spoil(claims)
    with pytest.raises(ConfigurationError, match=says) as error:
        prepare(claims)
    assert str(error.value).startswith(f"{MODEL_FIELD}: ")


def test_a_reward_model_scores(claims: Path) -> None:
    check = {"field": "spec.stages[0].ppo.rewards[0].model.uri", "stage": "p", "uri": "pvc://hub/.", "scores": True}
    with pytest.raises(ConfigurationError, match=r"rewards\[0\].model.uri: .* is no reward model: it holds Llama"):
        prepare(claims, models=[check])
    config = AutoConfig.from_pretrained(claims / "hub", num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(claims / "hub")
    assert prepare(claims, models=[check]).progress.phase == "Done"
    change(claims, lambda state: {name: tensor for name, tensor in state.items() if name != "score.weight"})
    with pytest.raises(DataError, match=r"lacks weights of its model: score.weight"):
        prepare(claims, models=[check])


def test_one_text_file(claims: Path) -> None:
    (claims / "corpus/input.txt").write_text("First Citizen: Before we proceed any further, hear me speak. " * 50)
    data = {"sources": [{"name": "a", "uri": "pvc://corpus/input.txt"}], "validationFraction": 0.05}
    (notice,) = [n for n in prepare(claims, data=data).progress.notices if n.reason == "NothingHeldOut"]
    assert notice.message.endswith("held-out figures; cutting it into several documents (a .txt file is one) helps")


def test_files_of_two_names_are_told(claims: Path) -> None:
    (claims / "corpus/rows-again.jsonl").symlink_to("rows.jsonl")
    (notice,) = [notice for notice in prepare(claims).progress.notices if notice.reason == "LinkedTwice"]
    assert notice.message.startswith(f"{ROWS_FIELD}: 1 names that match pvc://corpus/rows* are links to files")
