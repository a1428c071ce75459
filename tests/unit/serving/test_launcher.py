"""What the launcher sees before vLLM starts: the folder, the adapters, the memory."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llm_server import launch
from llm_server.door import KEY, MIDDLEWARE
from llm_server.ends_of_turn import FILE, generation_arguments
from llm_server.last_words import CONFIGURATION, LastWords
from llm_server.memory import (
    GIB,
    LEAST,
    TooLittleMemoryError,
    available_memory,
    cache_arguments,
    cache_bytes,
    memory_limit,
    weight_bytes,
    weight_files,
)
from llm_server.model_folder import adapter_problem, folder_problem, without_adapters
from llm_server.startup import Startup
from llm_trainer.protocol import Termination


def model(folder: Path, numbers: int = 500, stored: torch.dtype = torch.bfloat16, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(numbers, dtype=stored)}, folder / "model.safetensors")
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
    assert launch.prepared([folder, "--middleware=users.Own"])[0][-2:] == [
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


def module(folder: Path, **generation: object) -> str:
    """An adapter's folder, as the argument of vLLM."""
    folder.mkdir(parents=True)
    if generation:
        (folder / FILE).write_text(json.dumps(generation))
    return json.dumps({"name": folder.name, "path": str(folder)})


def test_answers_end_where_any_adapter_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which vLLM would not ask of an adapter; its base's way to sample stays."""
    monkeypatch.setenv("LLM_SERVER_STATE", str(tmp_path / "state"))
    base = model(tmp_path / "base", eos_token_id=2)
    (base / FILE).write_text(json.dumps({"eos_token_id": 2, "temperature": 0.6}))
    ends: list[dict[str, Any]] = [{"eos_token_id": [2, 7]}, {"eos_token_id": 9}, {}]
    loaded = [module(tmp_path / str(number), **told) for number, told in enumerate(ends)]
    given, _ = launch.prepared([str(base), "--enable-lora", "--lora-modules", *loaded])
    folder = next(one for one in given if one.startswith("--generation-config=")).partition("=")[2]
    assert json.loads((Path(folder) / FILE).read_text()) == {"eos_token_id": [2, 7, 9], "temperature": 0.6}


@pytest.mark.parametrize("own", [True, False], ids=["with a generation_config.json", "with a config.json alone"])
def test_adapters_that_end_as_their_base_change_nothing(tmp_path: Path, *, own: bool) -> None:
    base = model(tmp_path / "base", eos_token_id=2)
    if own:
        (base / FILE).write_text(json.dumps({"eos_token_id": [2, 3]}))
    modules = [module(tmp_path / "a", eos_token_id=2), "no JSON", "{}", module(tmp_path / "b")]
    (tmp_path / "b" / FILE).write_text("{")
    assert generation_arguments(base, [str(base), "--lora-modules", *modules]) == []
    assert generation_arguments(base, [str(base)]) == []
    theirs = module(tmp_path / "c", eos_token_id=7)
    assert generation_arguments(base, [str(base), "--generation-config=vllm", "--lora-modules", theirs]) == []


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


@pytest.mark.parametrize(
    ("stored", "served", "expected"),
    [
        (torch.bfloat16, "float32", 2000),
        (torch.bfloat16, "auto", 1000),
        (torch.float32, "bfloat16", 1000),
        (torch.float32, "float32", 2000),
        (torch.int32, "float32", 2000),
        (torch.float8_e4m3fn, "float32", 500),
    ],
)
def test_weights_take_what_they_are_served_in(stored: torch.dtype, served: str, expected: int, tmp_path: Path) -> None:
    """By the files, whatever the configuration says of them, or doesn't; quantized ones stay."""
    folder = model(tmp_path, stored=stored, text_config={"dtype": "float64"})
    found = weight_bytes(folder, [f"--dtype={served}"])
    assert expected <= found < expected + (200 if served == "auto" else 1), "as stored it has the header too"


@pytest.mark.parametrize("config", [{"dtype": "bfloat16"}, {"text_config": {"torch_dtype": "bfloat16"}}])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_weights_whose_file_does_not_tell_their_type(name: str, config: dict[str, object], tmp_path: Path) -> None:
    """Pickled, or broken, of which vLLM tells."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / name).write_bytes(b"\xff" * 1000)
    (tmp_path / "training_args.bin").write_bytes(bytes(1000))
    assert weight_bytes(tmp_path, ["--dtype=float32"]) == 2000
    assert weight_bytes(tmp_path, []) == 1000
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {}}))
    assert weight_bytes(tmp_path, ["--dtype=float32"]) == 1000


@pytest.mark.parametrize(
    ("arguments", "index", "expected"),
    [
        ([], ["model-1.safetensors"], {"consolidated.safetensors"}),
        (["--load-format=hf"], ["model-1.safetensors"], {"model-1.safetensors"}),
        (["--load_format", "hf"], None, {"model-1.safetensors", "consolidated.safetensors"}),
        (["--load-format=hf"], "broken", {"model-1.safetensors", "consolidated.safetensors"}),
    ],
)
def test_weights_in_two_formats_are_counted_once(
    arguments: list[str], index: list[str] | str | None, expected: set[str], tmp_path: Path
) -> None:
    for name in ("model-1.safetensors", "consolidated.safetensors", "pytorch_model.bin"):
        (tmp_path / name).touch()
    if index:
        written = index if isinstance(index, str) else json.dumps({"weight_map": dict.fromkeys("ab", index[0])})
        (tmp_path / "model.safetensors.index.json").write_text(written)
    assert {file.name for file in weight_files(tmp_path, arguments)} == expected


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


def test_a_size_that_is_no_number_is_vllms_to_tell(tmp_path: Path) -> None:
    assert cache_arguments(model(tmp_path), ["-tp=x", "--pipeline-parallel-size=0"], {})


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program in its place, to be written."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    file = tmp_path / "bin" / "vllm"
    file.parent.mkdir()
    file.touch(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")
    values = {"TERMINATION_MESSAGE": tmp_path / "termination", "SERVER_STATE": tmp_path / "state", "SERVER_PORT": 0}
    for name, value in values.items():
        monkeypatch.setenv(f"LLM_{name}", str(value))
    yield file
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_server_that_leaves_in_good_order_unasked_has_failed(vllm: Path, tmp_path: Path) -> None:
    """As vLLM's does when its engine has died, with 0."""
    vllm.write_text(
        "#!/bin/sh\nprintf 'Traceback (most recent call last):\\n  File\\nRuntimeError: dead\\nbye\\n' >&2\n"
    )
    assert launch.main([str(model(tmp_path / "llama")), "--host=127.0.0.1", "--port=1"]) == 1
    word = Termination.model_validate_json((tmp_path / "termination").read_bytes())
    assert (word.reason, word.message, word.exit_code) == ("Error", "RuntimeError: dead", 1)


def test_every_end_tells_that_it_served_without_adapters(vllm: Path, tmp_path: Path) -> None:
    """The first start does only that; each later end has its own cause, and the word is there before vLLM starts."""
    folder, said = model(tmp_path / "gpt2", architectures=["GPT2LMHeadModel"]), tmp_path / "termination"
    seen = tmp_path / "seen"
    vllm.write_text(f'#!/bin/sh\ncp {said} {seen}\necho "ValueError: $*" >&2\nexit 3\n')
    words = []
    for _ in range(3):
        launch.main([str(folder), "--host=127.0.0.1", "--port=1", "--enable-lora"])
        words.append(Termination.model_validate_json(said.read_bytes()))
    assert [(word.reason, word.exit_code) for word in words] == [
        ("AdapterNotSupported", 78),
        ("Error", 3),
        ("Error", 3),
    ]
    assert all("GPT2LMHeadModel" in (word.without_adapters or "") for word in words)
    assert "serve" in words[1].message
    assert "--enable-lora" not in words[1].message
    assert Termination.model_validate_json(seen.read_bytes()) == words[0], "for an end that leaves no time"


@pytest.mark.parametrize(
    ("code", "asked", "served", "left"),
    [
        (0, True, False, True),
        (1, True, True, True),
        (1, True, False, False),  # it could not start, which is told
        (1, False, True, False),
        (0, False, True, False),
        (-9, True, True, False),
    ],
)
def test_who_falls_over_while_it_leaves_has_left(code: int, asked: bool, served: bool, left: bool) -> None:
    child = launch.Child(["true"], Startup())
    child.asked_to_leave = asked
    if served:
        child.answers()
    assert child.has_left(code) is left
    child.run()


def test_who_was_asked_to_leave_is_not_taken_for_a_hang() -> None:
    """It takes no new request, and finishes those that it has."""
    leaves = "signal.signal(signal.SIGTERM, lambda *_: time.sleep(1) or exit(0)); print(1, flush=True); signal.pause()"
    child = launch.Child([sys.executable, "-c", f"import signal, time; {leaves}"], Startup())

    class Leaving(LastWords):
        def read(self, line: str) -> None:
            child.send(signal.SIGTERM)
            child.give_up("no answer")

    child.words = Leaving()
    assert child.run() == 0
    assert child.hang is None
