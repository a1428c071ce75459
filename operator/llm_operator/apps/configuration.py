"""A server's whole configuration, from an app's spec. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from llm_app.config import ChromaServer, Knowledge, Model, Prompt, Server, Store
from llm_operator.api.app import AppPrompt, LLMAppSpec, ResolvedModel
from llm_operator.api.knowledge import KnowledgeBase
from llm_operator.apps.knowledge import Base, owner_of
from llm_operator.apps.teams import team_of
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import digest_of
from llm_trainer.config import local_path

DRAIN_SECONDS = 60  # for open requests when a pod leaves


def prompt_of(prompt: AppPrompt) -> Prompt:
    return Prompt(
        system=prompt.system,
        variables=prompt.variables,
        context_template=prompt.context_template,
        examples=prompt.examples,
        output_schema=json.loads(prompt.output_schema) if prompt.output_schema else None,
    )


def store_of(app: Manifest, knowledge: KnowledgeBase) -> Store | None:
    kept = knowledge.store
    if kept and kept.chroma:
        server = ChromaServer.model_validate(kept.chroma.model_dump(exclude={"token_secret_key_ref"}))
        return Store(owner=owner_of(app), chroma=server)
    if kept and kept.pgvector:
        return Store(owner=owner_of(app), schema_name=kept.pgvector.schema_name)
    return None


def server_of(
    app: Manifest, spec: LLMAppSpec, model: ResolvedModel, bases: Sequence[Base], documents: Mapping[str, str]
) -> Server:
    """The revision is the hash of all else. ``documents``: digests of those of tools, by the tool's name."""
    made = Server(
        name=app["metadata"]["name"],
        model=Model(url=model.url, name=model.name, context_tokens=model.max_model_length),
        knowledge=[
            Knowledge(
                name=one.spec.name,
                revision=one.uri.rpartition("/")[2],
                folder="" if one.spec.store else local_path(one.uri),
                retrieval=one.spec.retrieval,
                embedding=one.embedder and one.embedder.settings,
                store=store_of(app, one.spec),
            )
            for one in bases
        ],
        prompt=prompt_of(spec.prompt),
        parameters=spec.parameters,
        team=team_of(spec, documents),
        drain_seconds=DRAIN_SECONDS,
        tracing=spec.tracing,
        tls=spec.tls is not None,
        metrics_without_key=bool(spec.api_key and spec.api_key.metrics_without_key),
    )
    return made.model_copy(update={"revision": digest_of(made.model_dump(mode="json"))[:12]})
