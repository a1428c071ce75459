"""Pickled weights: safetensors of the same numbers where they are allowed, and nothing else of a pickle is read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file

from llm_trainer.config import CACHE, RemoteInput
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.cache import fetch, read_fetched
from llm_trainer.storage.credentials import Credential
from llm_trainer.storage.hub import Hub as Client
from tests.storage.hub_server import Hub, Repository, serving

TIED = torch.arange(12, dtype=torch.float32).reshape(3, 4)
FIRST = {"embed.weight": TIED, "lm_head.weight": TIED, "norm.weight": torch.ones(4, dtype=torch.bfloat16)}
SECOND = {
    "turned.weight": TIED.t(),
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "none": torch.empty(0),
}


def saved(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


def get(hub: Hub, cache: Path, files: dict[str, bytes], *, allow: bool = True) -> Path:
    hub.repositories["team/old"] = Repository({"config.json": b"{}", **files})
    wanted = RemoteInput(field="spec.model.uri", uri="hf://team/old", use="model", allow_pickle=allow)
    return fetch(wanted, Client(Credential("hf"), hub.url), cache, MagicMock()).folder


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in wanted.items()
    )


def test_one_file(hub: Hub, tmp_path: Path) -> None:
    folder = get(hub, tmp_path / CACHE, {"pytorch_model.bin": saved(FIRST)})
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert same(load_file(folder / "model.safetensors"), FIRST)
    asked = len(hub.served)
    get(hub, tmp_path / CACHE, {"pytorch_model.bin": saved(FIRST)})
    assert len(hub.served) == asked, "it is there"
    (folder / "model.safetensors").unlink()
    get(hub, tmp_path / CACHE, {"pytorch_model.bin": saved(FIRST)})
    assert same(load_file(folder / "model.safetensors"), FIRST)
    known = read_fetched(folder)
    assert known
    assert [record.path for record in known.files] == ["config.json", "model.safetensors"]


def test_shards_and_an_adapter(hub: Hub, tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {}}).encode()
    shards = {f"pytorch_model-0000{n}-of-00002.bin": saved(part) for n, part in ((1, FIRST), (2, SECOND))}
    folder = get(hub, tmp_path / CACHE, {**shards, "pytorch_model.bin.index.json": index})
    places = json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"]
    assert places["norm.weight"] == "model-00001-of-00002.safetensors"
    assert same(load_file(folder / places["mask"]), SECOND)
    assert not list(folder.glob("*.bin"))
    folder = get(hub, tmp_path / CACHE, {"adapter_config.json": b"{}", "adapter_model.bin": saved(FIRST)})
    assert same(load_file(folder / "adapter_model.safetensors"), FIRST)


class Attack:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("/tmp/pickle-was-run"),)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (saved({"a": Attack()}), "holds more than tensors"),
        (saved({"a": 1}), "holds more than tensors by their names"),
        (saved(FIRST)[:-100], "is not of torch's format since 1.6, or damaged"),
        (saved(FIRST, _use_new_zipfile_serialization=False), "is not of torch's format since 1.6"),
    ],
)
def test_what_is_refused(content: bytes, says: str, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        get(hub, tmp_path / CACHE, {"pytorch_model.bin": content})
    assert not Path("/tmp/pickle-was-run").exists()


def test_it_is_refused_unless_it_is_allowed(hub: Hub, tmp_path: Path) -> None:
    files = {"pytorch_model.bin": saved(FIRST)}
    with pytest.raises(DataError, match="set allowPickle: true beside the uri"):
        get(hub, tmp_path / CACHE, files, allow=False)
    get(hub, tmp_path / CACHE, files)
    with pytest.raises(DataError, match="set allowPickle"):
        get(hub, tmp_path / CACHE, files, allow=False)
    with pytest.raises(DataError, match="name a folder or a revision with safetensors"):
        get(hub, tmp_path / CACHE, {"flax_model.msgpack": b"x"})
