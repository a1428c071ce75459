"""A folder's weights are those of its model, whatever its family; what is missing is named and never made up."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llm_trainer.config import local_path
from llm_trainer.models.build import from_folder
from llm_trainer.models.weights import check_folder, load, model_config
from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.errors import ConfigurationError, DataError
from tests.trainer.conftest import RunPods, stage_config
from tests.trainer.tiny import ALL, tiny

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "llama"
    tiny("llama").save_pretrained(made)
    return made


def copy(folder: Path, to: Path, change: Callable[[State], State]) -> Path:
    """With other weights."""
    shutil.copytree(folder, to)
    save_file(change(load_file(folder / "model.safetensors")), to / "model.safetensors", {"format": "pt"})
    return to


@pytest.mark.parametrize("family", ALL)
def test_what_transformers_has_saved_is_whole(family: str, tmp_path: Path) -> None:
    """From its headers alone, sharded too; and after one weight of its last layer is gone, it is not."""
    model = tiny(family)
    model.save_pretrained(tmp_path, max_shard_size="20kB")
    found, unused = check_folder(tmp_path)
    assert unused == []
    assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in model.parameters())
    assert all(p.device.type == "meta" for p in found.parameters())
    torch.manual_seed(1)
    sample = torch.randint(3, 300, (1, 9))
    loaded = load(AutoModelForCausalLM, tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=sample).logits, model(input_ids=sample).logits)
    last = max(tmp_path.glob("model*.safetensors"))
    kept = load_file(last)
    gone = max(name for name in kept if "norm" in name or name.endswith("weight"))
    del kept[gone]
    save_file(kept, last, {"format": "pt"})
    with pytest.raises(DataError, match="lacks weights of its model"):
        check_folder(tmp_path)


def without(state: State, part: str) -> State:
    return {name: tensor for name, tensor in state.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
            r"lacks weights of its model: lm_head.weight, .*; it has _orig_mod.lm_head.weight, ",
        ),
        (lambda state: without(state, "down_proj"), r"lacks .*: model.layers.0.mlp.down_proj.weight, model.layers.1"),
        (lambda state: without(state, "lm_head"), r"lacks .*: lm_head.weight; .* would make them up"),
        (
            lambda state: {**state, "model.norm.weight": torch.ones(7)},
            r"another shape .*: model.norm.weight is \(7,\) instead of \(32,\)",
        ),
    ],
)
def test_weights_under_other_names(folder: Path, tmp_path: Path, change: Any, says: str) -> None:
    broken = copy(folder, tmp_path / "broken", change)
    with pytest.raises(DataError, match=says):
        check_folder(broken)
    with pytest.raises(DataError, match=says):
        from_folder(broken, str(tmp_path), half=False)


@pytest.mark.parametrize("broken", [False, True])
def test_data_preparation_looks_at_the_model(base: str, prepared: Path, pods: RunPods, *, broken: bool) -> None:
    """Before any GPU is taken."""
    uri = base
    if broken:
        uri = "pvc://models/without-down-proj"
        start = Path(local_path(base, str(prepared)))
        made = copy(start, Path(local_path(uri, str(prepared))), lambda state: without(state, "down_proj"))
        (made / "manifest.json").unlink()  # a folder of another trainer
    settings = {"tokenizer": {"uri": base}, "models": [{"field": "spec.model.uri", "uri": uri}]}
    run = "pvc://models/looks" + "-broken" * broken
    config = stage_config(prepared, "data", nodes=1, runUri=run, prepareData=settings)
    (word,) = pods(config).start().wait()
    if broken:
        assert word.exit_code == ExitCode.DATA, word
        assert "down_proj.weight" in word.message
    else:
        assert word.exit_code == ExitCode.SUCCEEDED, word
        assert re.search(r"a llama of [0-9,]+ parameters", word.message), word.message


def test_weights_without_a_use_are_told(folder: Path, tmp_path: Path) -> None:
    more = copy(folder, tmp_path / "more", lambda state: {**state, "value_head.weight": torch.ones(1)})
    assert check_folder(more)[1] == ["value_head.weight"]
    assert from_folder(more, str(tmp_path), half=False) is not None


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", b"", b"\1"])
def test_files_that_are_no_weights(folder: Path, tmp_path: Path, content: bytes) -> None:
    broken = copy(folder, tmp_path / "broken", dict)
    (broken / "model.safetensors").write_bytes(content)
    for use in (check_folder, lambda folder: from_folder(folder, str(tmp_path), half=False)):
        with pytest.raises(DataError, match=str(broken)):
            use(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(DataError, match="has no weights"):
        check_folder(broken)
    with pytest.raises(DataError, match=r"model.safetensors"):
        from_folder(broken, str(tmp_path), half=False)


def test_weights_that_are_quantised(folder: Path, tmp_path: Path) -> None:
    made = copy(folder, tmp_path / "quantised", dict)
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "mxfp4"}}))
    for use in (check_folder, lambda folder: from_folder(folder, str(tmp_path), half=False)):
        with pytest.raises(ConfigurationError, match=r"quantised by mxfp4.*dequantize=True"):
            use(made)


def test_weights_that_are_quantised_in_silence(folder: Path, tmp_path: Path) -> None:
    """Eight bits and their scales, of which no configuration tells: without the scales the model is another."""

    def quantised(state: State) -> State:
        small = {name: weight.to(torch.float8_e4m3fn) for name, weight in state.items() if name.endswith("proj.weight")}
        return {**state, **small, **{f"{name}_scale_inv": torch.ones(1, 1) for name in small}}

    made = copy(folder, tmp_path / "silent", quantised)
    for use in (check_folder, lambda folder: from_folder(folder, str(tmp_path), half=False)):
        with pytest.raises(DataError, match=r"holds quantised weights.*down_proj\.weight_scale_inv"):
            use(made)


def test_weights_in_four_bits_are_for_an_adapter_alone(folder: Path, tmp_path: Path) -> None:
    made = copy(folder, tmp_path / "four", dict)
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    )
    check_folder(made)
    with pytest.raises(ConfigurationError, match=r"quantised by bitsandbytes.*set lora.quantization"):
        from_folder(made, str(tmp_path), half=False)


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path, max_shard_size="20kB")
    max(tmp_path.glob("model-*.safetensors")).unlink()
    for use in (check_folder, lambda folder: from_folder(folder, str(tmp_path), half=False)):
        with pytest.raises(DataError, match="model-0"):
            use(tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('{"model_type": "none_such"}', "no model that transformers has"),
        ('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}', "no model that transformers has"),
        ("{", "no model that transformers has"),
        ('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}', "writes nothing"),
        ('{"model_type": "t5"}', "transformers builds no such model"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "config.json"),
    ],
)
def test_configurations_of_no_language_model(tmp_path: Path, config: str, says: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ConfigurationError, match=says):
        check_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigurationError, match=r"no config.json"):
        model_config(tmp_path)
