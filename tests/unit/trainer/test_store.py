"""Which checkpoint a stage goes on from, and what it says when it has none that is good. One process, real files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from llm_trainer.checkpoint.files import COMPLETE, MANIFEST, committed
from llm_trainer.checkpoint.store import CheckpointStore
from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.errors import ConfigurationError, StorageError, classify
from llm_trainer.runtime.process_group import ProcessGroup

UNREADABLE = Path("/proc/self/mem")  # whose first byte no process can read: EIO


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """With checkpoints of steps 10, 20 and 30."""
    config = StageConfig.model_validate(
        {
            "training": "test", "namespace": "team", "uid": "0", "stage": "base", "attempt": 2, "nodes": 1,
            "processesPerNode": 1, "device": "cpu", "volumesRoot": str(tmp_path), "runUri": "pvc://models/run",
        }
    )  # fmt: skip
    made = CheckpointStore(config, 3, ProcessGroup(0, 0, 1, torch.device("cpu")))
    made.claim()
    for step in (10, 20, 30):
        made.commit(step, lambda snapshot, step=step: write(snapshot.folder, step))  # type: ignore[misc]
    return made


def write(folder: Path, step: int) -> None:
    (folder / "weights").write_text(f"weights of step {step}")


def names(store: CheckpointStore) -> list[str]:
    return sorted(folder.name for folder in store.folder.iterdir() if folder.is_dir())


def test_the_newest_is_taken(store: CheckpointStore) -> None:
    newest, notices = store.newest()
    assert newest == store.folder / "step-00000030"
    assert not notices


def test_bad_ones_are_set_aside_for_an_older_good_one(store: CheckpointStore) -> None:
    (store.folder / "step-00000030" / "weights").write_text("altered")
    (store.folder / "step-00000020" / COMPLETE).unlink()
    newest, notices = store.newest()
    assert newest == store.folder / "step-00000010"
    assert [notice.reason for notice in notices] == ["CheckpointSetAside"] * 2
    assert names(store) == ["set-aside-step-00000020-2", "set-aside-step-00000030-2", "step-00000010"]


def test_if_none_is_good_the_stage_does_not_begin_anew(store: CheckpointStore) -> None:
    """Which would erase its history. Nothing is moved, so that whoever mends one finds it where it was."""
    for folder in committed(store.stage_folder):
        (folder / "weights").write_text("altered")
    before = names(store)
    with pytest.raises(ConfigurationError) as raised:
        store.newest()
    for said in ("step-00000010: weights has 7 bytes", "step-00000020", "step-00000030", store.uri, "restartToken"):
        assert said in str(raised.value)
    assert names(store) == before
    (store.folder / "step-00000010" / "weights").write_text("weights of step 10")  # from a backup
    newest, _ = store.newest()
    assert newest == store.folder / "step-00000010"


def test_a_stage_whose_folder_was_removed_begins_anew(store: CheckpointStore) -> None:
    for folder in committed(store.stage_folder):
        (folder / "weights").unlink()
        folder.rename(store.stage_folder / folder.name)
    assert store.newest() == (None, [])


def test_what_cannot_be_read_for_a_moment_is_not_bad(store: CheckpointStore) -> None:
    """The disk says nothing of the file, so neither is the checkpoint set aside nor is an older one taken."""
    victim = store.folder / "step-00000030" / MANIFEST
    kept = victim.read_bytes()
    victim.unlink()
    victim.symlink_to(UNREADABLE)
    before = names(store)
    with pytest.raises(StorageError, match="step-00000030 can't be read at this moment"):
        store.newest()
    assert names(store) == before
    victim.unlink()
    victim.write_bytes(kept)
    newest, notices = store.newest()
    assert (newest, notices) == (store.folder / "step-00000030", [])


def test_a_folder_that_cannot_be_listed_is_not_empty(store: CheckpointStore) -> None:
    """Path.glob would say that nothing matches."""
    store.folder.rename(store.stage_folder / "elsewhere")
    store.folder.write_text("")
    with pytest.raises(StorageError, match="checkpoints can't be read at this moment"):
        store.newest()


def test_a_crash_at_any_moment_of_a_commit_leaves_the_one_before(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the calls that change the disk may be the last one."""
    renames = Path.rename

    class CrashError(Exception):
        pass

    for moment in range(1, 10):
        left = iter(range(moment))

        def rename(self: Path, target: Path, left: object = left) -> Path:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise CrashError
            return renames(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            try:
                store.commit(40, lambda snapshot: write(snapshot.folder, 40))
            except CrashError:
                ended = False
            else:
                ended = True
        newest, notices = store.newest()
        assert newest, moment
        assert newest.name in ("step-00000030", "step-00000040")
        assert not notices, f"a crash at change {moment} leaves what counts as broken: {notices}"
        if ended:
            break
    assert ended
    assert newest
    assert newest.name == "step-00000040"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), ExitCode.STORAGE),
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/volumes/models/run"), ExitCode.STORAGE),
        (OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), "/volumes/models/run"), ExitCode.STORAGE),
        (OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)), ExitCode.INTERNAL),  # of a socket
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ExitCode.NO_SPACE),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/volumes/x"), ExitCode.INTERNAL),
    ],
    ids=str,
)
def test_a_volume_that_does_not_answer_is_infrastructure(error: OSError, code: ExitCode) -> None:
    assert classify(error)[0] == code
    wrapped = RuntimeError("could not load")
    wrapped.__cause__ = error
    assert classify(wrapped)[0] == code
