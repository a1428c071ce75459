"""What the launcher tells its processes, and what it makes of their ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trainer.config import StageConfig
from llm_trainer.launch import environment, pod_end
from llm_trainer.protocol import ExitCode, Termination
from llm_trainer.runtime.last_words import write_last_words
from llm_trainer.runtime.startup import Startup


def config(**changes: object) -> StageConfig:
    return StageConfig.model_validate(
        {
            "training": "test", "namespace": "default", "uid": "0", "stage": "base", "attempt": 1, "nodes": 2,
            "processesPerNode": 8, "device": "cuda", "volumesRoot": "/volumes", "runUri": "pvc://models/run", **changes,
        }
    )  # fmt: skip


def test_the_group_as_torch_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "base-0.base")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    told = environment(config(), node_rank=1, local_rank=3, processes=config().processes_per_node)
    assert told["RANK"] == "11"
    assert told["LOCAL_RANK"] == "3"
    assert told["WORLD_SIZE"] == "16"
    assert told["LOCAL_WORLD_SIZE"] == "8"
    assert told["MASTER_ADDR"] == "base-0.base"
    assert told["OMP_NUM_THREADS"] == "1"
    assert "TORCHDYNAMO_DISABLE" not in told


def test_one_node_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    told = environment(config(nodes=1, processesPerNode=1, device="cpu"), node_rank=0, local_rank=0, processes=1)
    assert told["MASTER_ADDR"] == "127.0.0.1"
    assert told["TORCHDYNAMO_DISABLE"] == "1"
    assert "OMP_NUM_THREADS" not in told


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_LAST_WORDS", str(tmp_path))


@pytest.mark.usefixtures("words")
def test_a_good_end_is_the_first_ranks() -> None:
    write_last_words(Termination(reason="Succeeded", message="40 steps", rank=4))
    assert pod_end({4: 0, 5: 0}).message == "40 steps"


@pytest.mark.usefixtures("words")
def test_a_killed_process_is_the_cause_and_not_who_lost_it() -> None:
    write_last_words(Termination(reason="PeerLost", exit_code=ExitCode.PEER_LOST, rank=4))
    told = pod_end({4: ExitCode.PEER_LOST, 5: -9})
    assert (told.reason, told.rank, told.exit_code) == ("Killed", 5, 137)


@pytest.mark.usefixtures("words")
def test_who_was_asked_to_leave_is_not_the_cause() -> None:
    write_last_words(Termination(reason="DataError", message="row 7", exit_code=ExitCode.DATA, rank=5))
    assert pod_end({4: -15, 5: ExitCode.DATA}).message == "row 7"


@pytest.mark.usefixtures("words")
def test_asked_to_leave_before_the_first_step() -> None:
    told = pod_end({0: -15})
    assert (told.reason, told.exit_code) == ("Preempted", ExitCode.PREEMPTED)


@pytest.mark.usefixtures("words")
def test_killed_after_it_had_said_that_it_succeeded() -> None:
    write_last_words(Termination(reason="Succeeded", rank=0))
    assert (pod_end({0: -6}).reason, pod_end({0: -6}).exit_code) == ("Killed", 134)


@pytest.mark.usefixtures("words")
def test_an_end_without_a_word() -> None:
    told = pod_end({0: 3})
    assert (told.reason, told.exit_code) == ("InternalError", ExitCode.INTERNAL)
    assert "exit code 3" in told.message


def test_the_start_is_told_once_by_parts() -> None:
    startup = Startup()
    startup.reached("libraries")
    startup.reached("model")
    line = startup.first_step()
    assert line
    assert line.startswith("started in ")
    assert [*startup.parts] == ["libraries", "model", "first step"]
    assert startup.first_step() is None
