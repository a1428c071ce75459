"""Whatever ends an attempt, the next one goes on from the newest good checkpoint as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llm_trainer.checkpoint.files import MANIFEST, read_manifest, record
from llm_trainer.config import StageConfig, local_path
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import PRETRAIN, RunPods, Stage
from tests.trainer.pods import history, losses

STEPS = 40
SETTINGS = {"steps": STEPS, "checkpoint": {"everySteps": 10}, "evaluation": {"everySteps": 20}}


@pytest.fixture(scope="module")
def uninterrupted(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a run that nothing happens to."""
    from tests.trainer.conftest import MODEL, stage_config
    from tests.trainer.pods import Pods

    config = stage_config(prepared, "uninterrupted", model=MODEL, pretrain={**PRETRAIN, **SETTINGS})
    Pods(config, tmp_path_factory.mktemp("pods")).run()
    return losses(config)


def same_losses(config: StageConfig, expected: dict[int, float]) -> None:
    made = losses(config)
    assert sorted(made) == sorted(expected)
    apart = {step: abs(loss - expected[step]) for step, loss in made.items()}
    assert max(apart.values()) < 1e-5, apart


def test_kill_in_mid_stage(pretrain: Stage, pods: RunPods, uninterrupted: dict[int, float]) -> None:
    first = pods(pretrain("killed", **SETTINGS), warm=False).start()
    first.until_step(14, saved=10)
    os.kill(first.pods[1].worker(), signal.SIGKILL)
    words = first.wait()
    assert words[1].reason == "Killed"
    assert words[1].exit_code == 128 + signal.SIGKILL
    assert "rank 1" in words[1].message
    assert words[0].exit_code == ExitCode.PEER_LOST, f"{words[0].reason}: {words[0].message}"
    second = pretrain("killed", attempt=2, **SETTINGS)
    pods(second).run()
    same_losses(second, uninterrupted)
    (begun,) = [row for row in history(second) if row.get("lost")]
    assert (begun["step"], begun["attempt"]) in [(10, 2), (15, 2)]
    assert begun["lost"]["attempts"][0]["attempt"] == 1, "when the attempt was there whose steps are made again"
    report = (Path(second.run_folder) / "report.md").read_text()
    assert f"attempt 2 begins; {begun['lost']['steps']} steps are made again" in report


def test_kill_of_one_of_two_in_a_pod(pretrain: Stage, pods: RunPods) -> None:
    config = pretrain("killed-in-pod", nodes=1, **SETTINGS).model_copy(update={"processes_per_node": 2})
    pair = pods(config, warm=False).start()
    pair.until_step(3)
    os.kill(pair.pods[0].workers()[1], signal.SIGKILL)
    word = pair.wait()[0]
    assert (word.reason, word.rank, word.exit_code) == ("Killed", 1, 128 + signal.SIGKILL), word


def test_sigterm_to_one_rank_saves_at_one_step(pretrain: Stage, pods: RunPods, uninterrupted: dict[int, float]) -> None:
    first = pods(pretrain("preempted", **SETTINGS)).start()
    first.until_step(13)
    first.pods[1].process.terminate()
    words = first.wait()
    assert [word.exit_code for word in words] == [ExitCode.PREEMPTED] * 2, words
    assert words[0].progress
    assert words[0].progress.checkpoint
    assert words[0].progress.checkpoint.step == words[0].progress.step < STEPS
    second = pretrain("preempted", attempt=2, **SETTINGS)
    pods(second).run()
    same_losses(second, uninterrupted)


@pytest.mark.parametrize("harm", ["truncated", "altered", "missing", "incomplete"])
def test_a_bad_checkpoint_is_set_aside(
    harm: str, pretrain: Stage, pods: RunPods, uninterrupted: dict[int, float]
) -> None:
    short = {**SETTINGS, "steps": STEPS}
    first = pods(pretrain(f"harm-{harm}", **short)).start()
    first.until_step(32, saved=30)
    first.kill()
    checkpoints = Path(first.config.stage_folder) / "checkpoints"
    newest = checkpoints / "step-00000030"
    victim = max((file for file in newest.rglob("*.pt")), key=lambda file: file.stat().st_size)
    match harm:
        case "truncated":
            os.truncate(victim, victim.stat().st_size // 2)
        case "altered":
            content = bytearray(victim.read_bytes())
            content[len(content) // 2] ^= 1
            victim.write_bytes(content)
        case "missing":
            victim.unlink()
        case "incomplete":
            (newest / "COMPLETE").unlink()
    second = pretrain(f"harm-{harm}", attempt=2, **short)
    progress = pods(second).run()
    notices = [notice for notice in progress.notices if notice.reason == "CheckpointSetAside"]
    assert len(notices) == 1
    assert "step-00000030" in notices[0].message
    assert list(checkpoints.glob("set-aside-*"))
    same_losses(second, uninterrupted)


class Planted:
    """Whoever unpickles it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("known", [False, True], ids=["by nobody", "by the status"])
def test_a_planted_checkpoint_runs_nothing(
    known: bool, pretrain: Stage, pods: RunPods, tmp_path: Path, uninterrupted: dict[int, float]
) -> None:
    """By somebody who may write to the claim, so that its manifest tells of it what is true."""
    name = f"planted-{known}"
    first = pods(pretrain(name, **SETTINGS)).start()
    first.until_step(32, saved=30)
    first.kill()
    newest = Path(first.config.stage_folder) / "checkpoints" / "step-00000030"
    written = read_manifest(newest)
    victim = newest / next(entry.path for entry in written.files if entry.path.endswith("model_states.pt"))
    torch.save({"module": Planted(tmp_path / "planted")}, victim)
    files = [record(newest / entry.path, newest) for entry in written.files]
    (newest / MANIFEST).write_text(written.model_copy(update={"files": files}).model_dump_json(by_alias=True))
    second = pretrain(name, attempt=2, **SETTINGS)
    uri = f"{second.run_uri}/stages/{second.stage}/checkpoints/{newest.name}"
    again = pods(second.model_copy(update={"digests": {uri: written.digest()} if known else {}}))
    if known:
        notices = again.run().notices
        assert "its digest is sha256:" in notices[0].message
        same_losses(second, uninterrupted)
    else:
        word = again.start().wait()[0]
        assert (word.reason, word.exit_code) == ("DataError", ExitCode.DATA)
        assert "holds what no training writes" in word.message
        assert "posix.mkdir" in word.message
    assert not (tmp_path / "planted").exists()


def test_a_stale_attempt_may_not_commit(pretrain: Stage, pods: RunPods) -> None:
    first = pods(pretrain("stale", nodes=1, **SETTINGS)).start()
    first.until_step(3)
    (Path(first.config.stage_folder) / "attempt").write_text("2")
    words = first.wait()
    assert words[0].exit_code == ExitCode.STALE
    assert not list((Path(first.config.stage_folder) / "checkpoints").glob("step-*"))


@pytest.fixture
def small_disk(prepared: Path) -> Iterator[Path]:
    """A volumes root whose claim `models` is a file system of 8 MiB, with the prepared data on it."""
    volumes = prepared.parent / "small"
    models = volumes / "models"
    models.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", models], check=True)
    shutil.copytree(prepared / "models" / "run" / "data", models / "run" / "data")
    yield volumes
    subprocess.run(["umount", models], check=True)
    shutil.rmtree(volumes)


def test_a_full_disk_keeps_the_last_good_checkpoint(pretrain: Stage, pods: RunPods, small_disk: Path) -> None:
    settings = {**SETTINGS, "checkpoint": {"everySteps": 2, "keep": 20}}
    config = pretrain("full", nodes=1, **settings).model_copy(update={"volumes_root": str(small_disk)})
    words = pods(config).start().wait()
    assert words[0].exit_code == ExitCode.NO_SPACE, words
    assert words[0].reason == "NoSpace"
    kept = sorted((Path(config.stage_folder) / "checkpoints").glob("step-*"))
    assert kept, "no checkpoint was written before the disk was full"
    assert all((folder / "COMPLETE").exists() for folder in kept)
    assert local_path("pvc://models/run", str(small_disk)) in str(kept[-1])
