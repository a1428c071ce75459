"""What the launcher sees before vLLM starts: the folder, the adapters, the memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_server import launch
from llm_server.door import KEY, MIDDLEWARE
from llm_server.last_words import CONFIGURATION
from llm_server.memory import (
    GIB,
    LEAST,
    TooLittleMemoryError,
    available_memory,
    cache_arguments,
    cache_bytes,
    memory_limit,
    weight_bytes,
)
from llm_server.model_folder import adapter_problem, folder_problem, without_adapters
from llm_trainer.protocol import Termination


def model(folder: Path, size: int = 1000, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size)
    return folder


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    model(tmp_path / "llama")
    assert folder_problem(tmp_path / "llama") is None
    problem = folder_problem(tmp_path / "lama" / "deeper") or ""
    assert "spec.model: there is no folder" in problem
    assert f"{tmp_path} holds llama" in problem


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / f"{index:02d}.gguf").touch()
    problem = folder_problem(tmp_path) or ""
    assert "holds no config.json" in problem
    assert problem.endswith("08.gguf, 09.gguf and 2 more")
    assert folder_problem(tmp_path / "00.gguf") is None, "a single file is vLLM's to read"
    (tmp_path / "params.json").touch()
    assert folder_problem(tmp_path) is None, "Mistral's own format"


def test_a_key_that_opens_or_shuts_for_all_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(model(tmp_path / "llama"))
    for value in ("", "abc\n"):
        monkeypatch.setenv(KEY, value)
        with pytest.raises(launch.RefusedError, match=r"spec\.apiKey: the key "):
            launch.prepared([folder])
    monkeypatch.setenv(KEY, "s3cret")
    assert launch.prepared([folder, "--middleware=users.Own"])[-2:] == [
        f"--middleware={MIDDLEWARE}", f"--host={launch.any_address()}",
    ], "the last is asked first"  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"), [("{", "is no JSON"), ("[]", "no JSON object"), ("\xff\xfe", "is no JSON"), (None, "config.json")]
)
def test_a_configuration_that_can_not_be_read(
    text: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the pod's last word; vLLM is not started."""
    file, said = tmp_path / "model" / "config.json", tmp_path / "termination"
    model(tmp_path / "model")
    if text is None:
        file.unlink()
    else:
        file.write_text(text, encoding="latin-1")
    monkeypatch.setenv("LLM_TERMINATION_MESSAGE", str(said))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    assert launch.main([str(file.parent)]) == CONFIGURATION
    word = Termination.model_validate_json(said.read_bytes())
    assert (word.reason, word.exit_code) == ("ConfigurationError", CONFIGURATION)
    assert says in word.message
    assert word.message.startswith("spec.model: ")


@pytest.mark.parametrize(
    ("architecture", "refused"), [("GPT2LMHeadModel", True), ("LlamaForCausalLM", False), ("Unheard", False)]
)
def test_adapters_beside_a_model_that_takes_none(architecture: str, refused: bool, tmp_path: Path) -> None:
    folder = model(tmp_path, architectures=[architecture])
    given = [str(folder), "--port=1", "--enable-lora", "--lora-modules", "{}", "{}", "--max-loras=2", "--seed", "3"]
    assert (adapter_problem(folder, given) is not None) == refused
    assert adapter_problem(folder, without_adapters(given)) is None
    assert without_adapters(given) == [str(folder), "--port=1", "--seed", "3"]


@pytest.mark.parametrize(
    ("said", "limit"),
    [("max", None), ("1073741824", GIB), ("9223372036854771712", None), (None, None)],
    ids=["none", "one", "none in cgroup v1", "no cgroup"],
)
def test_the_limit_is_the_containers(said: str | None, limit: int | None, tmp_path: Path) -> None:
    file = tmp_path / "memory.max"
    if said:
        file.write_text(said + "\n")
    assert memory_limit([str(tmp_path / "other"), str(file)]) == limit


def test_cached_files_are_free_memory(tmp_path: Path) -> None:
    folders = (str(tmp_path / "v2"), str(tmp_path / "v1"))
    assert available_memory(folders) is None
    for version, limit, usage in (("v1", "memory.limit_in_bytes", "memory.usage_in_bytes"),
                                  ("v2", "memory.max", "memory.current")):  # fmt: skip
        folder = tmp_path / version
        folder.mkdir()
        (folder / limit).write_text(f"{10 * GIB}\n")
        (folder / usage).write_text(f"{9 * GIB}\n")
        (folder / "memory.stat").write_text(f"anon {GIB}\nfile {8 * GIB}\nactive_file {GIB}\ninactive_file {6 * GIB}\n")
        assert available_memory(folders) == 8 * GIB, version


def test_weights_take_more_where_they_are_served_wider(tmp_path: Path) -> None:
    folder = model(tmp_path, size=1000, dtype="bfloat16")
    assert weight_bytes(folder, ["--dtype=float32"]) == 2000
    assert weight_bytes(folder, ["--dtype=auto"]) == weight_bytes(folder, []) == 1000
    assert weight_bytes(model(tmp_path, dtype="bfloat16", quantization_config={}), ["--dtype=float32"]) == 1000


def test_the_cache_follows_the_limit() -> None:
    assert cache_bytes(None, 0) == GIB, "without a limit the node is not ours"
    assert cache_bytes(64 * GIB, 10 * GIB) > 45 * GIB
    assert 2 * cache_bytes(64 * GIB, 10 * GIB, workers=2) < cache_bytes(64 * GIB, 10 * GIB), "each has a cache"
    assert cache_bytes(2 * GIB, GIB) == LEAST
    with pytest.raises(TooLittleMemoryError, match=r"spec.resources.limits.memory: 2.0 GiB .* 4.0 GiB; use at least 6"):
        cache_bytes(2 * GIB, 4 * GIB)


def test_the_users_own_choice_stays(tmp_path: Path) -> None:
    folder = model(tmp_path)
    assert cache_arguments(folder, [], {})[0].startswith("--kv-cache-memory-bytes=")
    assert cache_arguments(folder, ["--kv-cache-memory-bytes=5"], {}) == []
    assert cache_arguments(folder, [], {"VLLM_CPU_KVCACHE_SPACE": "4"}) == []
