"""Which model embeds a knowledge base, by what its LLMServing tells of itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_app.config import Embedding
from llm_operator.api.knowledge import KnowledgeBase
from llm_operator.api.reasons import Reason
from llm_operator.apps.told import Followed, Told, access_of, address_of, read
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import condition_of
from llm_server.arguments import first_of

EMBEDS = {"--convert": ("embed",), "--task": ("embed",)}  # of vLLM
OTHERWISE = {"--convert": ("classify", "reward"), "--task": ("classify", "score", "reward")}


@dataclass(frozen=True)
class Embedder(Followed):
    """``settings``: what pods are told, None while that isn't known, or known not to work."""

    settings: Embedding | None = None


def embedder_of(knowledge: KnowledgeBase, servings: Mapping[str, Manifest]) -> Embedder | None:
    """None: it is found by words alone."""
    if knowledge.embedding is None:
        return None
    name = knowledge.embedding.serving.name
    if (serving := servings.get(name)) is None:
        return Embedder(Reason.SERVING_NOT_FOUND, f"LLMServing {name} does not exist; create it, or correct the name")
    told = read(serving)
    if isinstance(told, str):
        return Embedder(Reason.SERVING_NOT_READY, told)
    if not embeds(told):
        said = f"LLMServing {name} does not embed; name one whose spec.task is embed, or set it there"
        return Embedder(Reason.NOT_AN_EMBEDDING_MODEL, said)
    ready = condition_of(serving, "Ready") or {}
    model = told.status.model
    if not (address_of(serving, told.status.url) and model and model.uri):
        said = ready.get("message") or "it was just made"
        return Embedder(Reason.SERVING_NOT_READY, f"LLMServing {name} has not answered yet: {said}")
    settings = Embedding(
        url=told.status.url,
        name=told.served_model_name or name,
        model=model.digest or model.uri,
        query_prefix=knowledge.embedding.query_prefix,
        document_prefix=knowledge.embedding.document_prefix,
    )
    holds = ready.get("status") == "True"
    said = ready.get("message") or "it tells nothing yet"
    return Embedder(
        reason=Reason.MODEL_RESOLVED if holds else Reason.SERVING_NOT_READY,
        message=f"{settings.name} at {settings.url}" if holds else f"LLMServing {name} does not answer: {said}",
        holds=holds,
        settings=settings,
        **access_of(told),
    )


def embeds(serving: Told) -> bool:
    """By the field, or by arguments as vLLM reads them."""
    if serving.task == "embed":
        return True
    arguments = serving.extra_arguments
    if any(first_of(arguments, flag) in values for flag, values in OTHERWISE.items()):
        return False
    return first_of(arguments, "--runner") == "pooling" or any(
        first_of(arguments, flag) in values for flag, values in EMBEDS.items()
    )
