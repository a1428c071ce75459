"""What vLLM is told on a CPU of any kind, and only there."""

from __future__ import annotations

import json

from llm_operator.api.serving import LLMServingSpec
from llm_operator.serving.manifests import arguments, environment
from tests.specs import SERVING, changed

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
