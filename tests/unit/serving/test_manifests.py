"""What vLLM is told on a CPU of any kind, and only there."""

from __future__ import annotations

import json

from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.vllm_environment import DOORS
from llm_operator.serving.manifests import api_key, arguments, environment
from llm_server.door import METRICS_OPEN
from tests.specs import API_KEY, SERVING, changed

CPU = LLMServingSpec.model_validate(SERVING)
GPU = LLMServingSpec.model_validate(changed(SERVING, resources={"limits": {"nvidia.com/gpu": 1}}))


def option(spec: LLMServingSpec, name: str) -> str | None:
    given = arguments({"metadata": {"name": "chat"}}, spec, ())
    return next((value for key, _, value in (one.partition("=") for one in given) if key == name), None)


def test_rotary_embeddings_are_turned_by_torch_on_cpu() -> None:
    assert json.loads(option(CPU, "--compilation-config") or "{}") == {"custom_ops": ["-rotary_embedding"]}
    assert option(GPU, "--compilation-config") is None


def test_latent_attention_is_computed_as_plain_attention_on_cpu() -> None:
    assert environment(CPU)["VLLM_MLA_DISABLE"] == "1"
    assert "VLLM_MLA_DISABLE" not in environment(GPU)


def test_float32_on_cpu_unless_told() -> None:
    assert (option(CPU, "--dtype"), option(GPU, "--dtype")) == ("float32", "auto")
    told = LLMServingSpec.model_validate(changed(SERVING, dataType="bfloat16"))
    assert option(told, "--dtype") == "bfloat16"


def test_doors_of_vllm_stay_closed_whatever_env_from_says() -> None:
    """A variable of ours goes before one of envFrom; in spec.pods.env they are refused."""
    for launcher in (True, False):
        assert {environment(CPU, launcher=launcher)[name] for name in DOORS} == {"0"}


def test_the_key_comes_from_a_secret() -> None:
    spec = LLMServingSpec.model_validate(changed(SERVING, apiKey=API_KEY))
    assert api_key(spec) == [{"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "chat"}}}]
    assert api_key(CPU) == []
    assert METRICS_OPEN not in environment(spec, launcher=True)
    told = LLMServingSpec.model_validate(changed(SERVING, apiKey={**API_KEY, "metricsWithoutKey": True}))
    assert environment(told, launcher=True)[METRICS_OPEN] == "1"
    assert METRICS_OPEN not in environment(told), "of the launcher alone"
