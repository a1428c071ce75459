"""Results into a repository of a hub, by the real huggingface-hub."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_trainer.checkpoint.files import MANIFEST
from llm_trainer.protocol import ExitCode
from tests.storage.hub_server import Hub, Repository, serving
from tests.storage.results import SMALL, Run, config, publish, result, started

TO, TOKEN = "hf://team/chat", "hf_writer"
SECRET = {"HF_TOKEN": TOKEN}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.writers[TOKEN] = "team"
        yield hub


def to_hub(hub: Hub, volumes: Path, *told: str, to: str = TO, token: str = TOKEN, **more: object) -> Run:
    uri, digest = told or result(volumes)
    given = config(volumes, uri, digest, to, {"HF_TOKEN": token} if token else None, **more)
    return publish(given, volumes, HF_ENDPOINT=hub.url)


def test_whole_in_one_commit_and_again(hub: Hub, tmp_path: Path) -> None:
    told = result(tmp_path)
    run = to_hub(hub, tmp_path, *told)
    assert run.code == 0, run.log
    repository = hub.repositories["team/chat"]
    assert repository.private
    assert {*repository.files} == {*SMALL, *(f"model-{n}.safetensors" for n in range(3)), MANIFEST, ".gitattributes"}
    assert run.word["published"]["revision"] == repository.commit
    assert len(repository.before) == 1
    assert json.loads(repository.files[MANIFEST])["publication"]["digest"] == told[1]
    assert len(hub.sent) == 3
    again = to_hub(hub, tmp_path, *told)
    assert again.word["published"] == run.word["published"]
    assert (len(hub.sent), len(repository.before)) == (3, 1)
    assert TOKEN not in run.log + json.dumps(run.word)


def test_a_folder_of_a_branch(hub: Hub, tmp_path: Path) -> None:
    run = to_hub(hub, tmp_path, to="hf://team/chat@v1/sft", private=False)
    assert run.code == 0, run.log
    repository = hub.repositories["team/chat"]
    assert (repository.branch, repository.private) == ("v1", False)
    assert f"sft/{MANIFEST}" in repository.files


@pytest.mark.release  # the bucket's test of this shows the same of our own code
def test_killed_at_any_moment(hub: Hub, tmp_path: Path) -> None:
    """There is a commit with all or none, and no large file that has come is sent again."""
    uri, digest = result(tmp_path, shards=12, size=4 << 20)
    given = config(tmp_path, uri, digest, TO, SECRET)
    drawn = random.Random(0)
    for number in range(1, 6):
        process = started(given, tmp_path, HF_ENDPOINT=hub.url)
        deadline = time.monotonic() + 60
        while len(hub.sent) < 2 * number and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(drawn.random() / 20)
        process.kill()
        process.communicate()
        if repository := hub.repositories.get("team/chat"):
            assert {*repository.files} == {".gitattributes"} or MANIFEST in repository.files
    assert 2 <= len(hub.sent) <= 12
    assert publish(given, tmp_path, HF_ENDPOINT=hub.url).code == 0
    digests = [oid for oid, _ in hub.sent]
    assert len(digests) == len({*digests}) == 12
    folder = tmp_path / "models/run/step-1"
    assert {*digests} == {hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("model-*")}


@pytest.mark.release
def test_another_result_takes_the_place_of_its_own(hub: Hub, tmp_path: Path) -> None:
    assert to_hub(hub, tmp_path, *result(tmp_path, "a")).code == 0
    run = to_hub(hub, tmp_path, *result(tmp_path, "b", seed=1, shards=2))
    assert run.code == 0, run.log
    repository = hub.repositories["team/chat"]
    assert "model-2.safetensors" not in repository.files
    assert len(repository.before) == 2


def test_a_place_that_is_anothers(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["team/chat"] = Repository({"model.safetensors": b"x"})
    told = result(tmp_path)
    run = to_hub(hub, tmp_path, *told)
    assert run.code == ExitCode.DATA
    assert "has files that no LLMTraining has published (model.safetensors)" in run.message
    del hub.repositories["team/chat"]
    assert to_hub(hub, tmp_path, *told).code == 0
    run = to_hub(hub, tmp_path, *result(tmp_path, "b", seed=1), uid="f" * 8)
    assert run.code == ExitCode.DATA
    assert "has the stage sft of the LLMTraining team/chat" in run.message


@pytest.mark.parametrize(
    ("to", "token", "says"),
    [
        (TO, "hf_stranger", "does not accept the token (401); look at HF_TOKEN of the Secret store"),
        (TO, "", "does not accept the token (401); if it is not public, name a Secret with HF_TOKEN"),
        ("hf://others/chat", TOKEN, "the token may not write to others (403)"),
    ],
)
def test_what_is_refused(to: str, token: str, says: str, hub: Hub, tmp_path: Path) -> None:
    run = to_hub(hub, tmp_path, to=to, token=token)
    assert run.code == ExitCode.DATA, run.log
    assert says in run.message
    assert not hub.repositories


@pytest.mark.parametrize(
    ("step", "status"),
    [
        ("commit", 412),
        ("batch", 429),
        pytest.param("lfs", 500, marks=pytest.mark.release),
        pytest.param("commit", 503, marks=pytest.mark.release),
    ],
)
def test_what_passes_by_is_tried_again(step: str, status: int, hub: Hub, tmp_path: Path) -> None:
    hub.refusals[step] = status
    run = to_hub(hub, tmp_path)
    assert run.code == 0, run.log
    assert len({oid for oid, _ in hub.sent}) == len(hub.sent) == 3


def test_a_right_that_is_taken_away(hub: Hub, tmp_path: Path) -> None:
    hub.refusals["commit"] = 403
    run = to_hub(hub, tmp_path)
    assert run.code == ExitCode.DATA
    assert "the token may not write to team (403), it needs the right to write there; look at HF_TOKEN" in run.message
    assert {*hub.repositories["team/chat"].files} == {".gitattributes"}
