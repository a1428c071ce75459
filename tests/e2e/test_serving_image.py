"""The launcher of vLLM in the trainer image: real engines that do not start, hang, and leave. No cluster is needed."""

from __future__ import annotations

import http.client
import json
import os
import pydoc_data.topics
import re
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import TimeoutExpired

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from llm_server.door import HEALTH, PATHS, lets_in
from llm_server.memory import GIB, cache_bytes, weight_bytes
from llm_trainer.data.tokenizer import train_tokenizer
from tests.cluster import images
from tests.cluster.settings import REPOSITORY
from tests.e2e import in_image
from tests.e2e.family_models import DENSE, MODELS
from tests.e2e.in_image import launched
from tests.unit.serving import test_certificates as certificates

SHAPES = {
    "llama": ("llama", DENSE),
    "gpt2": ("gpt2", MODELS["gpt2"]),
    "long": ("llama", {**DENSE, "num_hidden_layers": 8, "max_position_embeddings": 2**20}),
}
KEY = "sesame"

CLOSED = {
    # another name for any request, which wants no key
    "/invocations",
    # adapters are listed in spec.adapters
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/{adapter_name}",
    # VLLM_SERVER_DEV_MODE
    "/abort_requests", "/collective_rpc", "/finish_weight_update", "/get_world_size", "/init_weight_transfer_engine",
    "/is_paused", "/is_sleeping", "/pause", "/release_kv_cache_memory", "/reset_encoder_cache", "/reset_mm_cache",
    "/reset_prefix_cache", "/resume", "/server_info", "/sleep", "/start_draft_weight_update", "/start_weight_update",
    "/update_weight_version", "/update_weights", "/wake_up", "/weight_info",
    # of who runs several engines, or looks for their faults
    "/fault_tolerance/apply", "/fault_tolerance/status", "/inference/v1/generate", "/is_scaling_elastic_ep",
    "/kv_event_sources", "/scale_elastic_ep", "/start_profile", "/stop_profile",
    "/v1/chat/completions/derender", "/v1/chat/completions/render", "/v1/completions/derender",
    "/v1/completions/render", "/v1/messages/render", "/v1/responses/render",
    # its own, which no client speaks
    "/generative_scoring", "/tokenizer_info", "/v1/chat/completions/batch",
    "/docs", "/docs/oauth2-redirect", "/openapi.json", "/static",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models without meaning."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(iter(pydoc_data.topics.topics.values()), 512)
    for name, (family, keys) in SHAPES.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **keys)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2,
                                  num_attention_heads=4, intermediate_size=128)  # fmt: skip
    AutoModel.from_config(config).save_pretrained(folder / "embedder")
    tokenizer.save_pretrained(folder / "embedder")
    return folder


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    name = in_image.container()
    yield name
    images.buildah("rm", name)


@pytest.fixture(scope="module")
def paths(image: str) -> list[str]:
    """All that the image's vLLM can have."""
    mounted = ("-v", f"{REPOSITORY}/tools:/src/tools:ro")
    environ = ("--env", "HOME=/tmp", "--env", "VLLM_CPU_OMP_THREADS_BIND=nobind")
    done = images.buildah("run", *environ, *mounted, image, "--", "python", "/src/tools/vllm_paths.py", check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def filled(path: str) -> str:
    """A path of a request, from one of a route."""
    return re.sub(r"\{\w+\}", "a", path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["long", "--kv-cache-memory-bytes=1000000"], ["KV cache is needed", "spec.maxModelLength"]),
        pytest.param(
            ["llama", "--tensor-parallel-size=8"],
            ["attention heads (4) must be divisible by tensor parallel size (8)", "spec.resources.limits"],
            marks=pytest.mark.release,
        ),
        pytest.param(
            ["llama", "--max-model-len=4096"],
            ["max_model_len (4096) is greater than the derived max_model_len (max_position_embeddings=128"],
            marks=pytest.mark.release,
        ),
        (
            ["lama"],
            ["spec.model: there is no folder /volumes/models/lama; /volumes/models holds embedder, gpt2, llama, long"],
        ),
        pytest.param(
            ["llama", "--nope"],
            ["unrecognized arguments: --nope", "spec.extraArguments"],
            marks=pytest.mark.release,
        ),
    ],
    ids=["context beyond the KV cache", "heads", "length beyond the positions", "no folder", "arguments"],
)
def test_the_last_word_is_the_cause(
    arguments: list[str], says: list[str], image: str, models: Path, tmp_path: Path
) -> None:
    name, *rest = arguments
    with launched(image, models, tmp_path, f"{in_image.MODELS}/{name}", *rest) as vllm:
        word = vllm.word
    assert word["exitCode"] != 0
    for part in says:
        assert part in word["message"], vllm.log[-3000:]


def test_a_model_without_lora_is_served_without_its_adapters(image: str, models: Path, tmp_path: Path) -> None:
    """The first start of the container says so and ends; the second serves. And it leaves as it is asked to."""
    module = json.dumps({"name": "law", "path": f"{in_image.MODELS}/law"})
    given = [f"{in_image.MODELS}/gpt2", "--enable-lora", "--lora-modules", module, "--shutdown-timeout=5"]
    environ = {"LLM_SERVER_STATE": "/tmp/state"}
    with launched(image, models, tmp_path, *given, **environ) as vllm:
        assert vllm.word["reason"] == "AdapterNotSupported"
        assert "GPT2LMHeadModel" in vllm.word["message"]
    (tmp_path / "termination").unlink()
    with launched(image, models, tmp_path, *given, **environ) as vllm:
        vllm.until_ready()
        assert "--enable-lora" not in vllm.log.split("vllm serve", 1)[1].splitlines()[0]
        (launcher,) = vllm.pids(r"\S*python\S* -m llm_server.launch")
        os.kill(launcher, signal.SIGTERM)
        assert vllm.process.wait(60) == 0, vllm.log[-3000:]
        assert "GPT2LMHeadModel" in vllm.word["withoutAdapters"], "an end that was asked for tells it too"


def test_a_model_that_only_embeds(image: str, models: Path, tmp_path: Path) -> None:
    """It has no /v1/completions: a 404 of this path is an answer, once the pooler gives one."""
    with launched(image, models, tmp_path, f"{in_image.MODELS}/embedder", "--runner=pooling",
                  VLLM_LOGGING_LEVEL="DEBUG") as vllm:  # fmt: skip
        vllm.until_ready()
        assert vllm.answer("/v1/completions", {"model": "tiny", "prompt": "a"})[0] == 404
        status, said = vllm.answer("/v1/embeddings", {"model": "tiny", "input": "a"})
        (launcher,) = vllm.pids(r"\S*python\S* -m llm_server.launch")
        os.kill(launcher, signal.SIGTERM)
        assert vllm.process.wait(60) == 0, vllm.log[-3000:]
    assert status == 200, said
    assert len(json.loads(said)["data"][0]["embedding"]) == 128
    assert re.search(r"Loaded model info for class \S*BertEmbeddingModel from cache", vllm.log), "the image has it"
    assert not (tmp_path / "termination").exists(), "an end that was asked for is no failure"


def test_the_key_of_the_environment(image: str, models: Path, tmp_path: Path) -> None:
    """VLLM asks everybody for it, and the launcher's requests carry it."""
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
    with launched(image, models, tmp_path, f"{in_image.MODELS}/llama", VLLM_API_KEY=KEY) as vllm:
        vllm.until_ready()
        assert vllm.answer("/v1/completions", body)[0] == 401
        assert vllm.answer("/v1/completions", body, key="another")[0] == 401
        assert vllm.answer("/v1/completions", body, key=KEY)[0] == 200
        assert KEY not in vllm.log


def test_an_engine_that_hangs_is_ended(image: str, models: Path, tmp_path: Path) -> None:
    """Its port is open and /health says 200; an idle one is left alone."""
    given = [f"{in_image.MODELS}/llama", "--max-model-len=auto"]
    with launched(image, models, tmp_path, *given, LLM_SERVER_STALL_SECONDS="5") as vllm:
        vllm.until_ready()
        with pytest.raises(TimeoutExpired):
            vllm.process.wait(20)
        assert (vllm.look("/startup"), vllm.look("/live")) == (200, 200)
        start = vllm.start()
        assert set(start) == {"importSeconds", "loadSeconds", "warmUpSeconds", "totalSeconds"}
        assert 0 < sum(start.values()) - start["totalSeconds"] < start["totalSeconds"]
        (engine,) = vllm.pids("VLLM::EngineCore")
        os.kill(engine, signal.SIGSTOP)
        word = vllm.word
    assert word["reason"] == "Hang"
    assert "the engine made no step for" in word["message"]
    assert vllm.process.returncode != 0


def test_the_cache_follows_the_limit_and_cached_files_are_no_use_of_it(
    image: str, models: Path, tmp_path: Path
) -> None:
    """Of 4 GiB 0.1 are left, and 3 of files could be dropped; vLLM's own worker would refuse the cache that fits."""
    cgroup, limit, usage = tmp_path / "cgroup", 4 * GIB, 39 * GIB // 10
    cgroup.mkdir()
    for file, value in (("memory.max", limit), ("memory.limit_in_bytes", limit), ("memory.current", usage),
                        ("memory.usage_in_bytes", usage)):  # fmt: skip
        (cgroup / file).write_text(f"{value}\n")
    (cgroup / "memory.stat").write_text(f"active_file {GIB}\ninactive_file {2 * GIB}\n")
    with launched(image, models, tmp_path, f"{in_image.MODELS}/long", "--max-model-len=auto") as vllm:
        vllm.until_ready()
        log = vllm.log
    size = cache_bytes(limit, weight_bytes(models / "long", ["--dtype=float32"]))
    assert f"--kv-cache-memory-bytes={size}" in log
    assert "Auto-fit max_model_len: reduced from 1048576 to" in log, "the length that fits"


def test_every_path_of_vllm_is_on_one_of_the_lists(paths: list[str]) -> None:
    """What a new version has more is closed; read what it does, and put it on one of them."""
    wanted = {path for path in paths if lets_in(filled(path))}
    unknown = set(paths) - wanted - CLOSED
    assert not unknown, "vLLM has paths that nobody has judged: trainer_image/llm_server/door.py, or CLOSED here"
    assert wanted >= PATHS, "the door lets in what vLLM no longer has"
    assert set(paths) >= CLOSED


def test_every_path_wants_the_key_or_is_not_there(paths: list[str], image: str, models: Path, tmp_path: Path) -> None:
    """Of the running engine, with all that its variables open. The launcher's own questions know the key."""
    environ = {"VLLM_API_KEY": "s3cret", "VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    given = [f"{in_image.MODELS}/llama", "--max-model-len=auto"]
    with launched(image, models, tmp_path, *given, **environ) as vllm:
        vllm.until_ready()
        for path in map(filled, paths):
            expected = 404 if not lets_in(path) else 200 if path == HEALTH else 401
            for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"):
                for headers in ({}, {"Authorization": "Bearer other"}):
                    found = vllm.ask(method, path, headers)
                    assert found == expected or (path == HEALTH and found == 405), f"{method} {path} {headers}"
        for path in (
            "//v1/models",
            "/v1/models/",
            "/V1/models",
            "/health/../invocations",
            "/health%2f..%2finvocations",
            "/health;/invocations",
            "/invocations/",
            "/metrics/",
            "/static/../invocations",
        ):
            assert vllm.ask("POST", path, {}) == vllm.ask("GET", path, {"Authorization": "Bearer s3cret"}) == 404, path
        for path in (
            "/v1/%6dodels",
            "/v1%2fmodels",
            "http://other/v1/models",
            "/v1/models?/health",
            "/v1/models#/health",
        ):
            assert vllm.ask("GET", path, {}) in (401, 404), path
        key = {"Authorization": "Bearer s3cret"}
        assert vllm.ask("POST", "/collective_rpc", key) == 404
        assert {path: vllm.ask("GET", path, key) for path in ("/v1/models", "/metrics", "/ping", "/version")} == {
            "/v1/models": 200, "/metrics": 200, "/ping": 200, "/version": 200,
        }  # fmt: skip
        question = {"model": "tiny", "prompt": [1], "max_tokens": 1}
        assert vllm.ask("POST", "/v1/completions", key, question) == 200
        assert vllm.ask("POST", "/tokenize", key, {"model": "tiny", "prompt": "a"}) == 200
        told = vllm.asked("GET", "/metrics", key)[1]
        missing = [name for name in asked_of_the_engine() if f"\n{name}{{" not in told]
        assert not missing, f"the engine tells nothing by the names {missing}"


def asked_of_the_engine() -> set[str]:
    """By the alerts and by the dashboards."""
    chart = REPOSITORY / "charts" / "llm-operator"
    files = [chart / "alerts.yaml", *(chart / "dashboards").glob("*.json")]
    return {name for file in files for name in re.findall(r"\b(?:vllm:|http_requests_total)\w*", file.read_text())}


def test_tls_whose_secret_is_renewed(image: str, models: Path, tmp_path: Path) -> None:
    """Twice, because vLLM by itself notices the first time alone. A pair that fits not is left out."""
    secret, state = tmp_path / "state" / "secret", tmp_path / "state"
    state.mkdir()

    def renewed(number: int) -> str:
        """As a kubelet does it; the certificate."""
        content = secret / f"..{number}"
        content.mkdir(parents=True)
        certificates.pair(content)
        (secret / "..new").symlink_to(content.name)
        (secret / "..new").rename(secret / "..data")
        for name in certificates.NAMES:
            if not (secret / name).is_symlink():
                (secret / name).symlink_to(f"..data/{name}")
        return (content / "tls.crt").read_text()

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", vllm.port), timeout=60)

    first = renewed(0)
    given = [f"{in_image.MODELS}/llama", "--max-model-len=auto", *certificates.given(Path("/tmp/secret"))]
    with launched(image, models, state, *given) as vllm:
        vllm.until_ready()
        assert shown().split() == first.split()
        assert vllm.answer("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 1}, tls=True)[0] == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            vllm.answer("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 1})
        for number in (1, 2):
            wanted, deadline = renewed(number).split(), time.monotonic() + 120
            while shown().split() != wanted:
                assert time.monotonic() < deadline, vllm.log[-3000:]
                time.sleep(1)
        assert vllm.look("/ready") == 200


def test_what_a_training_did_not_write_is_not_served(image: str, models: Path, tmp_path: Path) -> None:
    digests = {f"{in_image.MODELS}/llama": f"sha256:{'0' * 64}"}
    given = [f"{in_image.MODELS}/llama", "--max-model-len=auto"]
    with launched(image, models, tmp_path, *given, LLM_SERVER_DIGESTS=json.dumps(digests)) as vllm:
        word = vllm.word
    assert word["reason"] == "ConfigurationError"
    assert "is not as its training wrote it: its manifest can't be read" in word["message"]


def test_a_key_of_nothing_is_no_key(image: str, models: Path, tmp_path: Path) -> None:
    """vLLM itself would take it for none, and let everybody in."""
    with launched(image, models, tmp_path, f"{in_image.MODELS}/llama", VLLM_API_KEY="") as vllm:
        word = vllm.word
    assert word["reason"] == "ConfigurationError"
    assert "spec.apiKey: the key is empty" in word["message"]


def test_which_classes_take_adapters_is_vllms_own_word(image: str) -> None:
    """Of the families of a training; the others can't all be imported at the same cost in every image."""
    mounted = ("-v", f"{REPOSITORY}/tools:/src/tools:ro", "-v", f"{REPOSITORY}/trainer_image:/src/trainer_image:ro")
    done = images.buildah("run", "--env", "HOME=/tmp", *mounted, image, "--", "python", "/src/tools/vllm_lora.py",
                          "--check", check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
