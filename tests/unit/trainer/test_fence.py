"""Who may write into a run folder. One training joins its owners once; attempts of two trainings don't compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_trainer.checkpoint.fence import Fence
from llm_trainer.checkpoint.files import MANIFEST, FolderManifest
from llm_trainer.checkpoint.record import record_of, write_record
from llm_trainer.config import StageConfig
from llm_trainer.models.adapter import base_of
from llm_trainer.runtime.errors import ConfigurationError, StaleAttemptError
from llm_trainer.runtime.removal import remove


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    return tmp_path / "volumes"


def fence(volumes: Path, name: str, attempt: int = 1, *, resumes: bool = True, **settings: Any) -> Fence:
    return Fence(config(volumes, name, attempt, resumes=resumes, **settings))


def config(volumes: Path, name: str, attempt: int = 1, **settings: Any) -> StageConfig:
    return StageConfig.model_validate(
        {
            "training": name, "namespace": "team", "uid": f"uid-{name}", "stage": "base", "attempt": attempt,
            "nodes": 1, "processesPerNode": 1, "device": "cpu", "volumesRoot": str(volumes),
            "runUri": "pvc://models/run", **settings,
        }
    )  # fmt: skip


@pytest.fixture
def old(volumes: Path) -> Fence:
    """Attempt 7 of the first owner."""
    made = fence(volumes, "old", 7, resumes=False)
    made.claim()
    return made


def test_a_newer_attempt_owns_the_stage(old: Fence, volumes: Path) -> None:
    fence(volumes, "old", 8, resumes=False).claim()
    with pytest.raises(StaleAttemptError, match="attempt 8 owns this stage"):
        old.check()
    with pytest.raises(StaleAttemptError):
        old.claim()


def test_the_first_attempt_of_another_training_is_above_all_of_the_old_one(old: Fence, volumes: Path) -> None:
    new = fence(volumes, "new")
    new.claim()
    new.check()
    with pytest.raises(ConfigurationError, match=r"taken up by LLMTraining team/new \(uid uid-new\)"):
        old.check()
    with pytest.raises(ConfigurationError):
        fence(volumes, "old", 99).claim()  # though it may have taken the folder up itself
    new.check()


def test_a_folder_goes_from_hand_to_hand(old: Fence, volumes: Path) -> None:
    for name in ("a", "b", "c"):
        fence(volumes, name).claim()
    assert [owner.name for owner in old.owners()] == ["old", "a", "b", "c"]
    for name in ("a", "b"):
        with pytest.raises(ConfigurationError, match="taken up by LLMTraining team/c"):
            fence(volumes, name, 2).claim()


def test_two_that_take_it_at_once_do_not_both_write(old: Fence, volumes: Path) -> None:
    first, second = fence(volumes, "first"), fence(volumes, "second")
    before = (volumes / "models/run/owners.json").read_text()
    first.claim()
    (volumes / "models/run/owners.json").write_text(before)  # what the second had read
    second.claim()
    second.check()
    with pytest.raises(ConfigurationError, match="taken up by LLMTraining team/second"):
        first.check()


def test_a_folder_is_not_taken_without_being_asked(old: Fence, volumes: Path) -> None:
    with pytest.raises(ConfigurationError, match="belongs to LLMTraining team/old"):
        fence(volumes, "other", resumes=False).claim()


def test_what_is_no_run_folder_is_not_made_one(old: Fence, volumes: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pvc://models/rnu is no run folder; there are run$"):
        fence(volumes, "new", runUri="pvc://models/rnu").claim()
    with pytest.raises(ConfigurationError, match="nor is any other folder beside it, in pvc://backup"):
        fence(volumes, "new", runUri="pvc://backup/run").claim()
    assert not (volumes / "models/rnu").exists()
    (volumes / "corpus/books").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"pvc://corpus/books is no run folder; it has no owners\.json"):
        fence(volumes, "new", runUri="pvc://corpus/books").claim()


def test_the_base_of_a_restored_adapter_is_beside_it(volumes: Path) -> None:
    trained = config(volumes, "old", runUri="pvc://models/run", stage="legal")
    run = volumes / "restored/nightly"
    adapter, base = run / "stages/legal/results/step-5", run / "stages/chat/results/step-9"
    whole = FolderManifest(kind="model", step=9, attempt=1, files=[])
    uri = "pvc://models/run/stages/chat/results/step-9"
    low_rank = FolderManifest(kind="adapter", step=5, attempt=1, base=uri, base_digest=whole.digest(), files=[])
    for folder, manifest in ((adapter, low_rank), (base, whole)):
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    with pytest.raises(ConfigurationError, match="which now has None"):
        base_of(adapter, str(volumes))  # nothing tells where the run was
    write_record(run / "stages/legal", record_of(trained, {}))
    assert base_of(adapter, str(volumes)).uri == "pvc://restored/nightly/stages/chat/results/step-9"
    assert base_of(adapter, str(volumes)).folder == base


@pytest.mark.parametrize(
    ("name", "text"), [("owners.json", "{"), ("owners.json", '[{"uid": 1}]'), ("stages/base/attempt", "x")]
)
def test_a_file_that_was_altered_is_told_and_stays(old: Fence, volumes: Path, name: str, text: str) -> None:
    file = volumes / "models" / "run" / name
    assert file.exists()
    file.write_text(text)
    problem = old.problem()
    assert isinstance(problem, ConfigurationError)
    assert f"{file} is not as it was written" in str(problem)
    assert "restore it from a backup" in str(problem)
    with pytest.raises(ConfigurationError):
        old.claim()
    assert file.read_text() == text


def test_a_planted_link_leads_nobody_to_another_file(volumes: Path) -> None:
    """A claim has other users, and a trainer may be root."""
    run, victim = volumes / "models" / "run", volumes / "victim"
    run.mkdir(parents=True)
    victim.write_text("precious")
    for name in (".owners.json.tmp", "owners.json.tmp"):
        (run / name).symlink_to(victim)
    fence(volumes, "new", resumes=False).claim()
    assert victim.read_text() == "precious"
    assert not (run / "owners.json").is_symlink()
    assert (run / "owners.json").stat().st_mode & 0o777 == 0o644
    assert [file.name for file in run.glob(".owners.json.*.tmp")] == [], "nothing half-made stays"


def test_of_a_link_the_link_alone_is_removed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    for made in ("step-1", ".tmp-x", "dangling"):
        link = tmp_path / made
        link.symlink_to(victim if made != "dangling" else tmp_path / "nothing")
        remove(link)
        assert not link.is_symlink()
    assert (victim / "precious").exists()
    remove(tmp_path / "nothing")
    remove(victim / "precious")
    remove(victim)
    assert list(tmp_path.iterdir()) == []
