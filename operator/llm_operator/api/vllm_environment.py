"""Variables of vLLM 0.31 that a serving's pods can't have, because they open doors to whoever reaches the pods."""

from __future__ import annotations

from collections.abc import Iterator

from llm_operator.api.serving import LLMServingSpec

API_KEY = "VLLM_API_KEY"
# What the variable does, and what to do instead. The operator sets each to 0, which goes before envFrom.
DOORS = {
    "VLLM_SERVER_DEV_MODE": "opens paths that run methods of the engine by name, put it to sleep and change its "
    "weights; remove it",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "lets requests load any folder as an adapter; remove it, and list adapters in "
    "spec.adapters",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "lets messages carry pickles, which run what they say; remove it",
}


def environment_problems(spec: LLMServingSpec) -> Iterator[str]:
    for index, variable in enumerate(spec.pods.env):
        path = f"spec.pods.env[{index}]"
        if why := DOORS.get(variable.name):
            yield f"{path}: {variable.name} {why}"
        if variable.name == API_KEY and spec.api_key:
            yield f"{path}: {API_KEY} stands beside spec.apiKey; remove one"
