"""Results into a bucket, by a real S3 server."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from llm_trainer.checkpoint.files import MANIFEST, alteration
from llm_trainer.config import RemoteInput
from llm_trainer.protocol import ExitCode
from llm_trainer.storage.bucket import Bucket
from llm_trainer.storage.cache import fetch
from llm_trainer.storage.credentials import Credential
from llm_trainer.storage.meter import Meter
from llm_trainer.storage.multipart import Multipart, key_of
from llm_trainer.storage.publication import MARK
from llm_trainer.storage.upload_bucket import has_no_room
from llm_trainer.storage.upload_parts import PART
from tests.storage.narrow_key import narrowed
from tests.storage.results import SMALL, config, publish, result, started
from tests.storage.s3_server import serving

TO = "s3://models/team/chat"
SHARDS = {f"model-{number}.safetensors" for number in range(3)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """What a Secret holds, and the folder of the bucket `models`."""
    folder = tmp_path_factory.mktemp("s3")
    with serving(folder, bucket="models") as values:
        yield values, folder / "data" / "models"


@pytest.fixture
def keys(server: tuple[dict[str, str], Path]) -> dict[str, str]:
    return server[0]


@pytest.fixture
def bucket(server: tuple[dict[str, str], Path], request: pytest.FixtureRequest) -> Path:
    """A place of the test's own."""
    name: str = request.node.name
    return server[1] / name.partition("[")[0]


def files_of(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_whole_and_again(keys: dict[str, str], bucket: Path, tmp_path: Path) -> None:
    uri, digest = result(tmp_path)
    given = config(tmp_path, uri, digest, f"s3://models/{bucket.name}", keys)
    run = publish(given, tmp_path)
    assert run.code == 0, run.log
    assert files_of(bucket) == {*SHARDS, *SMALL, MANIFEST}
    assert run.word["published"]["files"] == 5
    assert run.word["published"]["bytes"] == 9 << 20 | sum(map(len, SMALL.values()))
    assert alteration(bucket, digest) is None
    told = json.loads((bucket / MANIFEST).read_text())["publication"]
    assert told == {"training": "chat", "namespace": "team", "uid": "0123abcd-0000", "stage": "sft", "digest": digest}
    times = {file: (bucket / file).stat().st_mtime_ns for file in files_of(bucket)}
    again = publish(given, tmp_path)
    assert again.word["published"] == run.word["published"]
    assert {file: (bucket / file).stat().st_mtime_ns for file in files_of(bucket)} == times
    for text in (run.log, again.log, json.dumps(run.word)):
        assert "sesame" not in text
    source = Bucket("models", Credential("s3://models", "store", keys))

    wanted = RemoteInput.model_validate({"field": "f", "uri": f"s3://models/{bucket.name}", "use": "model"})
    place = fetch(wanted, source, tmp_path / "cache", Meter())
    assert (place.folder / bucket.name / "model-0.safetensors").read_bytes() == (
        tmp_path / "models/run/step-1/model-0.safetensors"
    ).read_bytes()


def test_killed_at_any_moment(keys: dict[str, str], bucket: Path, tmp_path: Path) -> None:
    """Whole or not at all, and what was there is not sent again."""
    uri, digest = result(tmp_path, shards=8, size=8 << 20)
    given = config(tmp_path, uri, digest, f"s3://models/{bucket.name}", keys)
    drawn, sent, halves = random.Random(0), dict[str, int](), 0
    for number in range(1, 4):
        process = started(given, tmp_path)
        deadline = time.monotonic() + 60
        while len([file for file in files_of(bucket) if file in sent or file.endswith(".safetensors")]) < 2 * number:
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.005)
        time.sleep(drawn.random() / 20)
        process.kill()
        process.communicate()
        there = {
            file: (bucket / file).stat().st_mtime_ns for file in files_of(bucket) if file in SMALL or "model-" in file
        }
        assert {file: time for file, time in there.items() if file in sent} == {f: sent[f] for f in sent}
        sent = there
        halves += bool(sent) and not (bucket / MANIFEST).exists()
        if process.returncode != 0:
            assert not (bucket / MANIFEST).exists() or alteration(bucket, digest) is None
    assert halves, "it was never killed in the middle"
    assert publish(given, tmp_path).code == 0
    assert {file: (bucket / file).stat().st_mtime_ns for file in sent} == sent
    assert alteration(bucket, digest) is None
    assert not (bucket / MARK).exists()


def sent_parts(access: Path) -> list[str]:
    """Of each part that the server took whole: which file's it is, and its number."""
    told = re.findall(r" s3_UploadPart \S+ /models/(\S+)\?(\S+) 200 ", access.read_text())
    return [f"{path} {dict(parse_qsl(query))['partNumber']}" for path, query in told]


def test_a_file_that_is_killed_within_goes_on_at_its_parts(
    server: tuple[dict[str, str], Path], bucket: Path, tmp_path: Path
) -> None:
    access = server[1].parent.parent / "access"
    uri, digest = result(tmp_path, shards=1, size=(12 * PART) + 12345)
    given = config(tmp_path, uri, digest, f"s3://models/{bucket.name}", server[0])
    drawn = random.Random(0)
    for number in range(1, 6):
        process = started(given, tmp_path)
        deadline = time.monotonic() + 60
        while len(sent_parts(access)) < 2 * number and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(drawn.random() / 20)
        process.kill()
        process.communicate()
        assert process.returncode < 0, "it was never killed in the middle"
        assert not (bucket / "model-0.safetensors").exists()
    assert publish(given, tmp_path).code == 0
    assert alteration(bucket, digest) is None
    sent = sent_parts(access)
    assert sorted(sent) == sorted(f"{bucket.name}/model-0.safetensors {number}" for number in range(1, 14))


LISTS = {
    "uploads": lambda method, asked: method == "GET" and "uploads" in asked,
    "parts": lambda method, asked: method == "GET" and "uploadId" in asked,
}


@pytest.mark.parametrize("refused", LISTS)
def test_a_key_that_may_not_list_uploads_sends_all_anew(
    refused: str, server: tuple[dict[str, str], Path], bucket: Path, tmp_path: Path
) -> None:
    """Which is what its rights are said to be: those of listing uploads are not asked for."""
    folder = server[1].parent.parent
    place = f"{bucket.name}-{refused}"
    uri, digest = result(tmp_path, shards=1, size=(3 * PART) + 12345)
    with narrowed(server[0], folder / "pki", LISTS[refused]) as keys:
        given = config(tmp_path, uri, digest, f"s3://models/{place}", keys)
        process = started(given, tmp_path)
        deadline = time.monotonic() + 60
        while not any(place in part for part in sent_parts(folder / "access")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert process.returncode < 0, "it was never killed in the middle"
        run = publish(given, tmp_path)
    assert run.code == 0, run.log
    assert "can't be listed (403 Forbidden: AccessDenied)" in run.log
    assert alteration(server[1] / place, digest) is None


def test_what_another_result_had_under_way_is_ended(keys: dict[str, str], bucket: Path, tmp_path: Path) -> None:
    to = f"s3://models/{bucket.name}"
    credential = Credential("s3://models", "store", keys)
    key = key_of(credential)
    assert key
    uploads = Multipart("models", credential, key)
    process = started(config(tmp_path, *result(tmp_path, "a", shards=1, size=3 * PART), to, keys), tmp_path)
    while not any(uploads.parts(name, upload) for name, found in uploads.open(bucket.name).items() for upload in found):
        assert process.poll() is None
    process.kill()
    process.communicate()
    uri, digest = result(tmp_path, "b", seed=1, shards=1, size=PART + 1)
    run = publish(config(tmp_path, uri, digest, to, keys), tmp_path)
    assert run.code == 0, run.log
    assert alteration(bucket, digest) is None
    assert uploads.open(bucket.name) == {}


def test_another_result_takes_the_place_of_its_own(keys: dict[str, str], bucket: Path, tmp_path: Path) -> None:
    to = f"s3://models/{bucket.name}"
    assert publish(config(tmp_path, *result(tmp_path, "a", shards=3), to, keys), tmp_path).code == 0
    (bucket / "notes.txt").write_text("a user's own")
    uri, digest = result(tmp_path, "b", seed=1, shards=2)
    run = publish(config(tmp_path, uri, digest, to, keys), tmp_path)
    assert run.code == 0, run.log
    assert files_of(bucket) == {"model-0.safetensors", "model-1.safetensors", *SMALL, MANIFEST, "notes.txt"}
    assert json.loads((bucket / MANIFEST).read_text())["publication"]["digest"] == digest


def test_a_place_that_is_anothers(keys: dict[str, str], bucket: Path, tmp_path: Path) -> None:
    to = f"s3://models/{bucket.name}"
    bucket.mkdir(parents=True)
    (bucket / "notes.txt").write_text("a user's own")
    uri, digest = result(tmp_path)
    run = publish(config(tmp_path, uri, digest, to, keys), tmp_path)
    assert run.code == ExitCode.DATA
    assert "has files that no LLMTraining has published (notes.txt)" in run.message
    (bucket / "notes.txt").unlink()
    assert publish(config(tmp_path, uri, digest, to, keys), tmp_path).code == 0
    other = config(tmp_path, *result(tmp_path, "b", seed=1), to, keys, uid="f" * 8, training="other")
    before = files_of(bucket)
    run = publish(other, tmp_path)
    assert run.code == ExitCode.DATA
    assert "has the stage sft of the LLMTraining team/chat" in run.message
    assert files_of(bucket) == before


@pytest.mark.parametrize(
    ("to", "changed", "says"),
    [
        ("s3://nowhere/chat", {}, "there is no such bucket"),
        ("s3://models/refused", {"AWS_ACCESS_KEY_ID": "stranger"}, "the key is not accepted; look at"),
        ("s3://models/refused", {"AWS_SECRET_ACCESS_KEY": "wrong-wrong"}, "the key is not accepted; look at"),
        ("s3://models/refused", {"ca.crt": ""}, "certificate is not trusted; put its authority's into ca.crt"),
    ],
)
def test_what_is_refused(to: str, changed: dict[str, str], says: str, keys: dict[str, str], tmp_path: Path) -> None:
    uri, digest = result(tmp_path)
    run = publish(config(tmp_path, uri, digest, to, {**keys, **changed}), tmp_path)
    assert run.code == ExitCode.DATA, run.log
    assert says in run.message
    assert "sesame" not in run.log
    assert "wrong-wrong" not in run.log


def test_a_result_that_was_altered(keys: dict[str, str], bucket: Path, tmp_path: Path) -> None:
    uri, digest = result(tmp_path)
    with (tmp_path / "models/run/step-1/model-1.safetensors").open("r+b") as stream:
        stream.write(b"other")
    run = publish(config(tmp_path, uri, digest, f"s3://models/{bucket.name}", keys), tmp_path)
    assert run.code == ExitCode.DATA
    assert "is not as its stage wrote it: model-1.safetensors was altered" in run.message
    assert not bucket.exists()


@pytest.mark.parametrize(
    ("status", "full"),
    [("507 Insufficient Storage", True), ("QuotaExceeded", True), ("XMinioStorageFull", True),
     ("503 Service Unavailable", False)],
)  # fmt: skip
def test_a_file_whose_name_has_507_is_no_bucket_without_room(status: str, full: bool) -> None:
    assert has_no_room(f"Error performing PUT http://s3/m/model-00507-of-01000.safetensors: {status}") == full
