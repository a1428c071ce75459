"""How often new results roll out: a training, or a pod that says so, may publish one each second. Pure.

Only what a training has made waits. What a user changes in the spec goes at once, and takes along what waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_operator.api.serving import LLMServingSpec, LLMServingStatus, ServedAdapter
from llm_operator.kube.plan import Manifest
from llm_operator.serving.annotations import TEMPLATE, adapters_in, model_in
from llm_operator.serving.fleet import template_metadata
from llm_operator.serving.manifests import Surroundings, template
from llm_operator.serving.observe import Observed


@dataclass(frozen=True)
class Held:
    """``pods``: the template that stays. ``wait``: seconds."""

    pods: Manifest
    adapters: Sequence[ServedAdapter]
    wait: float


def held(
    observed: Observed, spec: LLMServingSpec, old: LLMServingStatus, wanted: Manifest, surroundings: Surroundings
) -> Held | None:
    """What stays for now in the place of the wanted template; None if it may go."""
    wait = observed.rollout_interval - observed.template_age
    told = template_metadata(observed.deployment).get("annotations") or {}
    if wait <= 0 or told.get(TEMPLATE) in (None, mark_of(wanted)) or is_of_another_spec(observed, old):
        return None
    model, adapters = model_in(told), adapters_in(told)
    kept = template(observed.serving, spec, model, adapters, surroundings) if model else None
    return Held(kept, adapters, wait) if kept and mark_of(kept) == told[TEMPLATE] else None


def is_of_another_spec(observed: Observed, old: LLMServingStatus) -> bool:
    """Whether no pass has gone through since the spec was changed, say to another stage."""
    return bool(old.observed_generation != observed.serving["metadata"].get("generation"))


def mark_of(pods: Manifest) -> str | None:
    found: str | None = pods["metadata"]["annotations"].get(TEMPLATE)
    return found
