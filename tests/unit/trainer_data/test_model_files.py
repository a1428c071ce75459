"""A model's folder, as people bring it: whole, or refused by what is wrong with which file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from llm_trainer.data import model_files
from llm_trainer.data.model_files import ModelFolder, check_model_files, not_finite
from llm_trainer.runtime.errors import DataError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:5f0b\nsize 988097824\n"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def check(folder: Path) -> None:
    check_model_files(ModelFolder(folder, "spec.model.uri", "pvc://hub/model"))


def weights(value: float = 0.5) -> dict[str, torch.Tensor]:
    return {
        "a": torch.full((3, 5), 0.25),
        "b": torch.tensor([1.0, value, 2.0]).to(torch.bfloat16),
        "n": torch.arange(4),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    save_file(weights(), tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    parts = [{"a": weights()["a"]}, {"b": weights()["b"]}]
    for name, part in zip(SHARDS, parts, strict=True):
        save_file(part, folder / name)
    index = {"metadata": {}, "weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def refused(folder: Path, says: str) -> None:
    with pytest.raises(DataError, match=rf"^spec.model.uri: pvc://hub/model can't be used: .*{says}"):
        check(folder)


def test_whole_folders(folder: Path, sharded: Path) -> None:
    check(sharded)
    save_file({}, folder / "model.safetensors")
    check(folder)


def test_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "there is no adapter_model.safetensors")
    save_file(weights(math.nan), tmp_path / "adapter_model.safetensors")
    refused(tmp_path, "b in adapter_model.safetensors has numbers that are not finite")
    save_file(weights(), tmp_path / "adapter_model.safetensors")
    check(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    refused(folder, f"{name} is a Git LFS pointer")


def test_links_without_their_files(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    (sharded / SHARDS[1]).symlink_to("../../blobs/5f0b")
    refused(sharded, f"{SHARDS[1]} lead nowhere: copy the files themselves")


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    refused(sharded, rf"of 2 files of model.safetensors.index.json 1 are missing: {SHARDS[1]}")


def test_a_shard_of_another_model(sharded: Path) -> None:
    save_file({"c": torch.zeros(2)}, sharded / SHARDS[1])
    refused(sharded, rf"says that {SHARDS[1]} has b, and it doesn't")


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": 1}', "{}", "[" * 100_000])
def test_an_index_that_is_none(sharded: Path, index: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(index)
    refused(sharded, "model.safetensors.index.json can't be read")


def test_an_index_that_leads_out(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../x.safetensors"}}')
    refused(sharded, r"names ../../x.safetensors, which is no file of the folder")


def test_without_weights_or_with_others_alone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "there are no weights")
    torch.save(weights(), folder / "pytorch_model.bin")
    refused(folder, "its weights are pytorch_model.bin alone")
    (folder / "config.json").unlink()
    refused(folder, "there is no config.json")
    with pytest.raises(DataError, match="there is no such folder"):
        check(folder / "missing")


def test_a_file_that_is_cut_at_any_byte(folder: Path) -> None:
    whole = save(weights())
    for size in range(len(whole)):
        (folder / "model.safetensors").write_bytes(whole[:size])
        refused(folder, "model.safetensors")
    (folder / "model.safetensors").write_bytes(whole + b"\0")
    refused(folder, "it is cut, or altered")


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_header_with_a_damaged_byte(tmp_path_factory: pytest.TempPathFactory, place: int, byte: int) -> None:
    """Refused or, where it is a name or white space that has changed, taken: never another error."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    data = bytearray(save(weights()))
    data[place % len(data)] = byte
    (folder / "model.safetensors").write_bytes(data)
    try:
        check(folder)
    except DataError as error:
        assert "model.safetensors" in str(error)  # noqa: PT017


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(folder: Path, value: float) -> None:
    save_file(weights(value), folder / "model.safetensors")
    refused(folder, "b in model.safetensors has numbers that are not finite")


TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
         "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn}  # fmt: skip


@pytest.mark.parametrize("kind", list(TYPES))
@given(bits=st.lists(st.integers(0, 255), min_size=8, max_size=64).map(lambda found: found[: len(found) // 8 * 8]))
def test_finite_is_what_torch_says(kind: str, bits: list[int]) -> None:
    numbers = torch.tensor(bits, dtype=torch.uint8).view(TYPES[kind])
    assert not_finite(bytes(bits), kind) == (not bool(torch.isfinite(numbers.to(torch.float64)).all()))


def test_of_a_large_model_a_share_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first numbers of each tensor always, the others evenly: a model that was lost is so everywhere."""
    monkeypatch.setattr(model_files, "BLOCK", 64)
    monkeypatch.setattr(model_files, "SCANNED", 4096)
    read: list[int] = []
    monkeypatch.setattr(model_files, "not_finite", lambda data, kind: bool(read.append(len(data))))  # type: ignore[func-returns-value]
    save_file({f"w{n}": torch.zeros(1024) for n in range(10)}, folder / "model.safetensors")
    check(folder)
    assert len(read) >= 10
    assert 4096 * 0.8 < sum(read) < 4096 * 1.3
