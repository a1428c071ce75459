"""What a checkpoint's files hold is what there was when it began, whatever the training does meanwhile."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3

from llm_trainer.checkpoint.files import read_manifest
from llm_trainer.checkpoint.memory import room, room_of
from llm_trainer.checkpoint.snapshot import Buffers, Snapshot
from llm_trainer.checkpoint.store import CheckpointStore
from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.errors import NoSpaceError, StageError, StorageError
from llm_trainer.runtime.process_group import ProcessGroup

OPENED = threading.Event()


class Waits:
    """Pickles once the event is set: a write that takes as long as a test wants."""

    def __deepcopy__(self, _memo: dict[int, Any]) -> Waits:  # as the copy to memory does, which must not wait
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        OPENED.wait(60)
        return dict, ()


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    config = StageConfig.model_validate(
        {
            "training": "test", "namespace": "team", "uid": "0", "stage": "base", "attempt": 1, "nodes": 1,
            "processesPerNode": 1, "device": "cpu", "volumesRoot": str(tmp_path), "runUri": "pvc://models/run",
        }
    )  # fmt: skip
    made = CheckpointStore(config, 3, ProcessGroup(0, 0, 1, torch.device("cpu")))
    made.claim()
    OPENED.clear()
    return made


def read(file: Path) -> Any:
    return torch.load(file, weights_only=True)


def test_the_training_goes_on_while_it_is_written(store: CheckpointStore) -> None:
    weights = torch.arange(10.0)
    slow = Waits()

    def write(snapshot: Snapshot) -> None:
        snapshot.add(snapshot.folder / "weights.pt", {"weights": weights, "slow": [1]})
        snapshot.add(snapshot.folder / "slow.pt", [slow])
        snapshot.add(snapshot.folder / "state.json", '{"step": 1}')

    flight = store.begin(1, write)
    weights.zero_()  # the next step
    assert not flight.written
    assert store.newest() == (None, []), "it doesn't count yet"
    OPENED.set()
    landing = store.land(flight)
    assert landing.folder.name == "step-00000001"
    assert read(landing.folder / "weights.pt")["weights"].tolist() == list(range(10))
    assert (landing.folder / "state.json").read_text() == '{"step": 1}'
    assert store.newest() == (landing.folder, [])


def test_a_process_that_goes_in_mid_flight_leaves_the_one_before(store: CheckpointStore) -> None:
    first = store.commit(1, lambda snapshot: snapshot.add(snapshot.folder / "weights.pt", torch.ones(2)))
    store.begin(2, lambda snapshot: snapshot.add(snapshot.folder / "slow.pt", [Waits()]))
    again = CheckpointStore(store.config.model_copy(update={"attempt": 2}), 3, store.group)
    again.claim()
    assert again.newest() == (first, [])
    assert [folder.name for folder in again.folder.iterdir() if folder.is_dir()] == [first.name]
    OPENED.set()


def test_nothing_is_read_again(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_trainer.checkpoint.store.record", pytest.fail)
    folder = store.commit(1, lambda snapshot: snapshot.add(snapshot.folder / "weights.pt", torch.ones(1000)))
    (listed,) = read_manifest(folder).files
    content = (folder / "weights.pt").read_bytes()
    assert (listed.path, listed.size) == ("weights.pt", len(content))
    assert listed.blake3 == blake3(content).hexdigest()


@pytest.mark.parametrize("in_line", [False, True])
@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [(errno.ENOSPC, NoSpaceError, "lower checkpoint.keep"), (errno.EIO, StorageError, "the one before it is kept")],
)
def test_a_write_that_fails(
    number: int,
    kind: type[StageError],
    says: str,
    store: CheckpointStore,
    monkeypatch: pytest.MonkeyPatch,
    *,
    in_line: bool,
) -> None:
    before = store.commit(1, lambda snapshot: snapshot.add(snapshot.folder / "weights.pt", torch.ones(2)))

    def fails(_descriptor: int, _data: Any) -> int:
        raise OSError(number, os.strerror(number))

    def write(snapshot: Snapshot) -> None:
        if in_line:
            snapshot.room = lambda: 0
        snapshot.add(snapshot.folder / "weights.pt", {"weights": torch.ones(2_000_000)})

    monkeypatch.setattr(os, "write", fails)
    flight = store.begin(2, write)
    with pytest.raises(kind, match=says) as raised:
        store.land(flight)
    assert "step-00000002" in str(raised.value)
    assert raised.value.exit_code == (ExitCode.NO_SPACE if number == errno.ENOSPC else ExitCode.STORAGE)
    monkeypatch.undo()
    assert store.newest() == (before, [])
    assert not list(store.folder.glob(".tmp-*"))


def test_what_has_no_room_is_written_at_once(store: CheckpointStore) -> None:
    def write(snapshot: Snapshot) -> None:
        snapshot.room = lambda: 100
        snapshot.add(snapshot.folder / "small.pt", torch.ones(10))
        snapshot.add(snapshot.folder / "large.pt", torch.ones(1000))
        assert (snapshot.folder / "large.pt").exists()
        assert not (snapshot.folder / "small.pt").exists()

    landing = store.land(store.begin(1, write))
    assert landing.in_line == 4000
    assert sorted(entry.path for entry in read_manifest(landing.folder).files) == ["large.pt", "small.pt"]
    assert store.newest() == (landing.folder, [])


def test_a_copy_is_of_what_is_held_and_no_more(tmp_path: Path) -> None:
    whole = torch.arange(1000.0)
    state: OrderedDict[str, Any] = OrderedDict(
        part=whole[:10], tied=whole[:10], turned=whole.view(10, 100).T, step=torch.tensor(3), name="x"
    )
    state._metadata = {"version": 1}  # type: ignore[attr-defined]
    snapshot = Snapshot(tmp_path)
    snapshot.add(tmp_path / "state.pt", {"module": state, "sizes": (torch.Size([2]), torch.float32)})
    snapshot.write()
    (made,) = snapshot.records
    assert made.size < 7000
    with torch.serialization.safe_globals([OrderedDict]):
        found = read(tmp_path / "state.pt")
    assert found["module"]["tied"].data_ptr() == found["module"]["part"].data_ptr()
    assert torch.equal(found["module"]["turned"], state["turned"])
    assert found["module"]._metadata == {"version": 1}
    assert found["sizes"] == (torch.Size([2]), torch.float32)


def test_memory_is_taken_once(tmp_path: Path) -> None:
    buffers = Buffers()
    places = []
    for _ in range(2):
        snapshot = Snapshot(tmp_path, buffers)
        snapshot.add(tmp_path / "state.pt", {"weights": torch.ones(1000)})
        ((_, content),) = snapshot._waiting
        places.append(content["weights"].data_ptr())
        snapshot.close()
    assert places[0] == places[1]
    assert buffers.missing(iter([(4000, False)])) == 0
    assert buffers.missing(iter([(4000, False)] * 2)) == 4000


def test_room() -> None:
    assert room_of(1000, 0, 1) == 900
    assert room_of(1000, 100, 2) == 350, "each of two, which needs 100 again"
    assert room_of(-5, 0, 1) == 0
    assert 0 < room(1) < 1 << 50
