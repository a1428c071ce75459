"""Models and data of a hub, by the process that fetches, as data preparation runs it."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import CACHE, parse
from llm_trainer.stages.fetched import environment
from llm_trainer.storage import http_ranges, ranges
from llm_trainer.storage import hub as hub_client
from llm_trainer.storage.credentials import Credential
from llm_trainer.storage.ranges import COMMIT_BYTES
from llm_trainer.storage.remote_files import TransientError
from llm_trainer.storage.retry import TRIES
from tests.storage.hub_server import Fault, Hub, Repository, serving

WEIGHTS = random.Random(0).randbytes(3_000_000)
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    "modeling_own.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickled",
    "onnx/model.onnx": b"another format",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        found.repositories["team/model"] = Repository(dict(MODEL))
        yield found


def started(hub: Hub, volumes: Path, *uris: str, use: str = "model", credentials: Any = (), before: Any = ()) -> Any:
    request = {
        "claim": "models", "cache": str(volumes / "models" / CACHE), "writer": "uid",
        "inputs": [{"field": f"spec.model[{i}]", "uri": uri, "use": use} for i, uri in enumerate(uris)],
        "credentials": list(credentials), "before": list(before),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_trainer.storage"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment(), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "2"},
    )
    assert process.stdin
    process.stdin.write(json.dumps(request))
    process.stdin.close()
    return process


def ended(process: Any) -> Any:
    """Its last line."""
    said = [json.loads(line) for line in process.stdout]
    process.wait(60)
    return said[-1]


def fetched(hub: Hub, volumes: Path, *uris: str, **options: Any) -> list[Any]:
    last = ended(started(hub, volumes, *uris, **options))
    assert "fetched" in last, last
    found: list[Any] = last["fetched"]
    return found


def refused(hub: Hub, volumes: Path, uri: str, **options: Any) -> str:
    last = ended(started(hub, volumes, uri, **options))
    assert "error" in last, last
    assert last["error"]["reason"] == "DataError", last
    return str(last["error"]["message"])


def folder_of(volumes: Path, entry: Any) -> Path:
    return volumes / str(entry["place"]).removeprefix("pvc://")


def test_a_model_is_what_transformers_reads_of_it(hub: Hub, tmp_path: Path) -> None:
    (entry,) = fetched(hub, tmp_path, "hf://team/model")
    commit = hub.repositories["team/model"].commit
    assert entry["place"] == f"pvc://models/{CACHE}/hf/models/team/model/{commit}"
    assert (entry["revision"], entry["license"]) == (commit, "apache-2.0")
    folder = folder_of(tmp_path, entry)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: MODEL[name] for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md")
    }
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".") or path.suffix == ".lock"]


def test_a_second_training_fetches_nothing(hub: Hub, tmp_path: Path) -> None:
    fetched(hub, tmp_path, "hf://team/model")
    count = len(hub.served)
    fetched(hub, tmp_path, "hf://team/model@main")
    assert len(hub.served) == count


def test_a_run_stays_at_its_revision(hub: Hub, tmp_path: Path) -> None:
    before = fetched(hub, tmp_path, "hf://team/model")
    hub.repositories["team/model"].files["config.json"] = b'{"model_type": "mistral"}'
    asked = len(hub.asked)
    assert fetched(hub, tmp_path, "hf://team/model", before=before) == before
    assert len(hub.asked) == asked
    (other,) = fetched(hub, tmp_path, "hf://team/model")
    assert other["revision"] != before[0]["revision"]
    assert (folder_of(tmp_path, before[0]) / "config.json").read_bytes() == MODEL["config.json"]


def test_two_at_once_fetch_once(hub: Hub, tmp_path: Path) -> None:
    processes = [started(hub, tmp_path, "hf://team/model") for _ in range(2)]
    assert all("fetched" in ended(process) for process in processes)
    assert len([path for path, _, _ in hub.served if path.endswith("model.safetensors")]) == 1


def test_files_of_data_by_a_glob(hub: Hub, tmp_path: Path) -> None:
    files = {f"data/{name}.jsonl": b'{"text": "x"}\n' for name in ("a", "b")}
    hub.repositories["team/corpus"] = Repository({**files, "data/deep/c.jsonl": b"", "README.md": b""}, kind="datasets")
    (entry,) = fetched(hub, tmp_path, "hf://datasets/team/corpus/data/*.jsonl", use="data")
    assert entry["files"] == 2
    assert entry["place"].endswith("/data/*.jsonl")
    found = folder_of(tmp_path, entry).parent
    assert sorted(path.name for path in found.iterdir()) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("fault", [Fault("close", 1_000_000, 2), Fault("500", count=2), Fault("429")])
def test_what_a_server_does_is_lived_through(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    hub.faults.append(fault)
    (entry,) = fetched(hub, tmp_path, "hf://team/model")
    assert (folder_of(tmp_path, entry) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_server_that_falls_silent_is_asked_again(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_ranges, "SECONDS", 1.0)
    hub.faults.append(Fault("stall", 1000, file=".safetensors"))
    source, remote = hub_client.Hub(Credential("hf"), hub.url), parse("hf://team/model")
    (file,) = [file for file in source.listing(remote).files if file.path == "model.safetensors"]
    assert source.fetch(remote, file, tmp_path / "part", lambda _: None) == hashlib.sha256(WEIGHTS).hexdigest()


def test_killed_five_times_at_random_it_goes_on(hub: Hub, tmp_path: Path) -> None:
    """No byte that was committed, and of others only what a commit, or a socket, holds, comes again."""
    size, name = 10 * COMMIT_BYTES, "model.safetensors"
    block = random.Random(1).randbytes(COMMIT_BYTES)
    weights = b"".join(number.to_bytes(4, "big") + block[4:] for number in range(10))
    hub.repositories["team/model"].files[name] = weights
    part = f"*/.{hub.repositories['team/model'].commit}.parts/*{name}.json"
    committed = [0]
    for cut in sorted(random.Random(2).sample(range(2 * COMMIT_BYTES, size), 5)):
        hub.faults[:] = [Fault("stall", max(1, cut - committed[-1]), 1, name)]
        process, seen, deadline = started(hub, tmp_path, "hf://team/model"), len(hub.served), time.monotonic() + 300
        while not any(path.endswith(name) for path, _, _ in hub.served[seen:]):
            assert time.monotonic() < deadline, hub.served
            time.sleep(0.05)
        process.kill()
        process.wait()
        (state,) = (tmp_path / "models" / CACHE).rglob(part)
        committed.append(json.loads(state.read_bytes())["committed"])
        next((tmp_path / "models" / CACHE).rglob("*.lock")).unlink()  # else a minute of patience, see test_lock.py
    hub.faults.clear()
    (entry,) = fetched(hub, tmp_path, "hf://team/model")
    assert (folder_of(tmp_path, entry) / name).read_bytes() == weights
    assert [start for path, start, _ in hub.served if path.endswith(name)] == committed
    assert committed[-1] > size // 2, committed


def test_files_that_are_whole_are_not_fetched_again_after_a_kill(hub: Hub, tmp_path: Path) -> None:
    repository = hub.repositories["team/model"]
    repository.files |= {f"model-{number}.safetensors": WEIGHTS for number in range(12)}
    hub.faults[:] = [Fault("stall", 1000, 1, "model-9.safetensors")]  # the last by name
    process, deadline = started(hub, tmp_path, "hf://team/model"), time.monotonic() + 300
    journal = f"*/.{repository.commit}.parts/finished.jsonl"
    whole: set[str] = set()
    while len(whole) < len(repository.files) - 5:  # all but that one, and the three that aren't wanted
        assert time.monotonic() < deadline, whole
        time.sleep(0.05)
        lines = [
            line for file in (tmp_path / "models" / CACHE).rglob(journal) for line in file.read_bytes().splitlines()
        ]
        whole = {json.loads(line)["path"] for line in lines if line.endswith(b"}")}
    process.kill()
    process.wait()
    next((tmp_path / "models" / CACHE).rglob("*.lock")).unlink()
    hub.faults.clear()
    seen = len(hub.served)
    (entry,) = fetched(hub, tmp_path, "hf://team/model")
    again = [path for path, _, _ in hub.served[seen:]]
    assert not [path for path in again if path.rpartition("/")[2] in whole], again
    assert (folder_of(tmp_path, entry) / "model-9.safetensors").read_bytes() == WEIGHTS


def test_a_token_is_read_from_the_secret_and_never_said(hub: Hub, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "HF_TOKEN").write_text("hf_sesame\n")
    hub.repositories["team/private"] = Repository(dict(MODEL), token="hf_sesame")
    hub.repositories["team/gated"] = Repository(dict(MODEL), token="hf_other", gated=True)
    credentials = [{"secretName": "hub", "target": "hf", "folder": str(secret)}]
    assert fetched(hub, tmp_path, "hf://team/private", credentials=credentials)
    said = refused(hub, tmp_path, "hf://team/gated", credentials=credentials)
    assert "is gated" in said
    assert "HF_TOKEN of the Secret hub" in said
    assert "sesame" not in said
    assert not [path for path in (tmp_path / "models").rglob("*.json") if b"sesame" in path.read_bytes()]


def test_what_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["team/pickled"] = Repository({"config.json": b"{}", "pytorch_model.bin": b"x"})
    hub.repositories["team/quantized"] = Repository({"model.Q4_K_M.gguf": b"GGUF"})
    hub.repositories["team/private"] = Repository(dict(MODEL), token="hf_sesame")
    for uri, says in {
        "hf://team/absent": "spec.model[0]: hf://team/absent: there is no such repository, or it is private; if it is",
        "hf://team/private": "there is no such repository, or it is private",
        "hf://team/model@v9": "has no revision 'v9'",
        "hf://team/model/absent": "no file matches hf://team/model",
        "hf://team/pickled": "has pickled weights alone (pytorch_model.bin)",
        "hf://team/quantized": "has no safetensors (model.Q4_K_M.gguf); name a model's folder",
    }.items():
        assert says in refused(hub, tmp_path, uri), uri
    assert not list((tmp_path / "models").rglob("*.lock"))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("rows.csv", "Write it as Parquet: pandas.read_csv"),
        ("rows.tar", "Unpack it, or narrow the glob."),
        ("rows.jsonl.xz", "Unpack it with xz -d"),
        ("book.docx", "Narrow the glob or convert the file."),
        ("README", "Narrow the glob or convert the file."),
    ],
)
def test_a_kind_of_file_that_nobody_reads_is_not_fetched(file: str, says: str, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["team/corpus"] = Repository({"a.jsonl": b'{"text": "x"}\n', file: b"x" * 9}, kind="datasets")
    told = refused(hub, tmp_path, "hf://datasets/team/corpus/*", use="data")
    assert f"hf://datasets/team/corpus/* names {file!r}, which ends with none of .txt, .jsonl" in told
    assert says in told
    assert not hub.served


def test_a_hub_that_fails_for_long_ends_the_attempt_when_its_tries_are_over(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each of so many tries by so many of another."""
    monkeypatch.setattr(ranges, "pause", lambda *_: 0)
    hub.faults = [Fault("500", count=1000, file="model.safetensors")]
    source, remote = hub_client.Hub(Credential("hf"), hub.url), parse("hf://team/model")
    [weights] = [file for file in source.listing(remote).files if file.path == "model.safetensors"]
    with pytest.raises(TransientError, match="500"):
        source.fetch(remote, weights, tmp_path / "part", lambda _: None)
    assert 1000 - hub.faults[0].count == TRIES
