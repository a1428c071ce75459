"""Families whose models vLLM loads and then does not answer as they were trained. Pure.

Measured by tests/e2e/test_families.py with vLLM 0.31; docs/families.md has the figures.
"""

from __future__ import annotations

from typing import Any

from llm_operator.api.families import FAMILIES
from llm_operator.api.resources import Resources
from llm_operator.kube.plan import Manifest

# On a CPU of any kind; on GPUs nothing is known against them.
NOT_ON_CPU = {
    "mamba": "vLLM has no kernel for its scan on CPU",
    "jamba": "vLLM has no kernel for its scan on CPU",
}


def why_not_served(training: Manifest, resources: Resources) -> str | None:
    """Why vLLM must not serve what a training makes; None where nothing is known against it."""
    architecture: dict[str, Any] = ((training.get("spec") or {}).get("model") or {}).get("architecture") or {}
    family, config = architecture.get("family"), architecture.get("config") or {}
    if family == "mamba2" and (groups := FAMILIES[family].resolve(config)["n_groups"]) != 1:
        return (
            f"vLLM normalises each of the n_groups {groups} of a mamba2 by itself, and transformers all; train with 1"
        )
    if not resources.gpus and family in NOT_ON_CPU:
        return f"{family}: {NOT_ON_CPU[family]}; set resources.limits[{resources.gpu_resource}]"
    return None
