"""Which model answers, by what the LLMServing tells of itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_operator.api.app import LLMAppSpec, ResolvedModel
from llm_operator.api.reasons import Reason
from llm_operator.apps.budget import too_long_for
from llm_operator.apps.told import Followed, Told, access_of, address_of, read
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import condition_of
from llm_server.arguments import first_of

# Of vLLM: values with which a model writes no text.
POOLING = {
    "--runner": ("pooling",),
    "--convert": ("embed", "classify", "reward"),
    "--task": ("embed", "classify", "score", "reward"),
}


@dataclass(frozen=True)
class Choice(Followed):
    """``model``: what pods are told, None while that isn't known, or known not to work."""

    model: ResolvedModel | None = None


def resolve(serving: Manifest | None, spec: LLMAppSpec) -> Choice:
    wanted = spec.model.serving
    if serving is None:
        return no(Reason.SERVING_NOT_FOUND, f"LLMServing {wanted.name} does not exist; create it, or correct the name")
    ready = condition_of(serving, "Ready") or {}
    told = read(serving)
    if isinstance(told, str):
        return no(Reason.SERVING_NOT_READY, told)
    if not address_of(serving, told.status.url):
        said = ready.get("message") or "it was just made"
        return no(Reason.SERVING_NOT_READY, f"LLMServing {wanted.name} has no address yet: {said}")
    if kind := writes_no_text(told):
        said = f"LLMServing {wanted.name} has {kind}, so its model writes no text; name another"
        return no(Reason.NOT_A_CHAT_MODEL, said)
    if missing := without_adapter(told, spec):
        return missing
    name = wanted.adapter or told.served_model_name or serving["metadata"]["name"]
    model = ResolvedModel(url=told.status.url, name=name, max_model_length=told.max_model_length)
    if too_long := too_long_for(model.max_model_length, spec):
        return no(Reason.PROMPT_TOO_LONG, too_long)
    known: dict[str, Any] = {"model": model, **access_of(told)}
    if ready.get("status") != "True":
        said = f"LLMServing {wanted.name} does not answer: {ready.get('message') or 'it tells nothing yet'}"
        return Choice(reason=Reason.SERVING_NOT_READY, message=said, **known)
    return Choice(holds=True, reason=Reason.MODEL_RESOLVED, message=f"{model.name} at {model.url}", **known)


def no(reason: Reason, message: str) -> Choice:
    return Choice(reason=reason, message=message)


def writes_no_text(serving: Told) -> str:
    """What says so; empty if nothing does."""
    if serving.task == "embed":
        return "spec.task embed"
    for flag, values in POOLING.items():
        if (value := first_of(serving.extra_arguments, flag)) in values:
            return f"{flag} {value} in spec.extraArguments"
    return ""


def without_adapter(serving: Told, spec: LLMAppSpec) -> Choice | None:
    """Why the adapter that is wanted can't be asked; None if it can, or none is wanted."""
    name, adapter = spec.model.serving.name, spec.model.serving.adapter
    if adapter is None:
        return None
    there = [one.name for one in serving.adapters]
    if adapter not in there:
        names = ", ".join(there) or "none"
        return no(
            Reason.ADAPTER_NOT_FOUND,
            f"LLMServing {name} has no adapter {adapter!r}; its adapters are {names}; name one of them",
        )
    told = next((one for one in serving.status.adapters if one.name == adapter), None)
    if told and told.state == "Serving":
        return None
    said = told.message if told else "it tells nothing yet"
    return no(Reason.ADAPTER_NOT_SERVED, f"LLMServing {name} does not serve the adapter {adapter}: {said}")
