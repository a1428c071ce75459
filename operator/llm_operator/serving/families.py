"""Families whose models vLLM loads and then does not answer as they were trained, or loads no adapters for. Pure.

Measured by tests/e2e/test_families.py with vLLM 0.31; docs/families.md has the figures. Which classes take adapters is
vLLM's own word: tools/vllm_lora.py writes it down.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import llm_server
from llm_operator.api.architecture import EXPERTS
from llm_operator.api.architecture_schema import config_schema, mismatches
from llm_operator.api.families import CLASSES, known_keys
from llm_operator.api.parallel import head_problem, size_of, tensor_parallel_size
from llm_operator.api.resources import Resources
from llm_operator.api.serving import LLMServingSpec
from llm_operator.kube.fields import object_at
from llm_operator.kube.plan import Manifest
from llm_server.arguments import TENSOR, values_of
from llm_trainer.config import Architecture

TAKES_ADAPTERS: dict[str, bool] = json.loads((Path(str(llm_server.__file__)).parent / "lora.json").read_text())
POSITIONS = ("max_position_embeddings", "n_positions")
# Rope types for which vLLM takes the positions as they are; for any other it multiplies them by the factor.
UNSCALED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
OTHER_CONFIGURATION = ("--hf-overrides", "--hf-config-path")
LONGER = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"  # the variable by which a user insists

# On a CPU of any kind; on GPUs nothing is known against them.
NOT_ON_CPU = {
    "mamba": "vLLM has no kernel for its scan on CPU",
    "jamba": "vLLM has no kernel for its scan on CPU",
}


def why_not_served(training: Manifest, resources: Resources) -> str | None:
    """Why vLLM must not serve what a training makes; None where nothing is known against it."""
    family, config = architecture_of(training)
    if family == "mamba2" and (groups := known_keys(family, config)["n_groups"]) != 1:
        return (
            f"vLLM normalises each of the n_groups {groups} of a mamba2 by itself, and transformers all; train with 1"
        )
    if not resources.gpus and family in NOT_ON_CPU:
        return f"{family}: {NOT_ON_CPU[family]}; set resources.limits[{resources.gpu_resource}]"
    return None


def architecture_of(training: Manifest) -> tuple[str | None, dict[str, Any]]:
    """Family and written configuration of a training from scratch; None and nothing of one from an existing model.

    Nobody has validated it yet: of a training that can't be read, or whose sizes are none, nothing is known either.
    """
    found = object_at(training, "spec", "model", "architecture")
    try:
        architecture = Architecture.model_validate(found, strict=True, by_alias=True, by_name=False)
    except ValidationError:
        return None, {}
    known = config_schema()["properties"]
    wrong = (
        m for key, value in architecture.config.items() if key in known for m in mismatches(known[key], value, key)
    )
    return (None, {}) if any(wrong) else (architecture.family, dict(architecture.config))


def why_it_does_not_fit(training: Manifest, spec: LLMServingSpec) -> str | None:
    """The field of the serving that vLLM would refuse after its start, and what to set instead."""
    family, config = architecture_of(training)
    if family is None or any(values_of(spec.extra_arguments, flag) for flag in OTHER_CONFIGURATION):
        return None
    keys = known_keys(family, config)
    if family == "llama":  # takes it from the number of heads where it is left out
        keys = {**keys, "num_key_value_heads": config.get("num_key_value_heads")}
    gpus = spec.resources.gpus
    spread = size_of(spec.extra_arguments, TENSOR) or tensor_parallel_size(gpus, spec.extra_arguments)
    if gpus and spread > 1 and (problem := head_problem(keys, spread)):
        return f"spec.resources.limits[{spec.resources.gpu_resource}]: {problem}"
    if LONGER in {variable.name for variable in spec.pods.env}:
        return None
    return length_problem(keys, spec.max_model_length)


def length_problem(keys: dict[str, Any], length: int | None) -> str | None:
    """Why a context is longer than vLLM lets the model's positions reach."""
    key = next((key for key in POSITIONS if isinstance(keys.get(key), int)), None)
    if key is None or length is None:
        return None
    rope = keys.get("rope_parameters") or {}
    factor = 1 if rope.get("rope_type") in UNSCALED else rope.get("factor") or 1
    if length <= keys[key] * factor:
        return None
    scaled = "" if factor == 1 else f" times the rope factor {factor}"
    return f"spec.maxModelLength: {length} is above {key} {keys[key]}{scaled} of the model; use at most that"


def why_no_adapter(training: Manifest, resources: Resources) -> str | None:
    """Why vLLM can load no adapter beside what a training makes; None where nothing is known against it."""
    family, config = architecture_of(training)
    if family is None or family not in CLASSES:
        return None
    if TAKES_ADAPTERS.get(CLASSES[family]) is False:
        return f"vLLM loads no adapters beside a {family}"
    keys = known_keys(family, config)
    if not resources.gpus and any((keys.get(name) or 0) > 1 for name in EXPERTS):
        return f"vLLM has no kernel on CPU for adapters beside the experts of a {family}: take GPUs"
    return None
