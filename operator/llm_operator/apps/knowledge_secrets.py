"""Secrets by which pods reach what embeds and keeps their knowledge: of the server and of the index Jobs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_app.config import EMBEDDING_API_KEY, EMBEDDINGS, STORE_TOKEN, STORE_URL, of_knowledge
from llm_operator.apps.knowledge import Base


def knowledge_secrets(bases: Sequence[Base]) -> list[dict[str, Any]]:
    """Variables that the kubelet fills."""
    found: list[tuple[str, dict[str, Any]]] = []
    for base in bases:
        if base.embedder and base.embedder.api_key:
            found.append((of_knowledge(EMBEDDING_API_KEY, base.spec.name), base.embedder.api_key))
        if base.spec.store and base.spec.store.pgvector:
            key = base.spec.store.pgvector.url_secret_key_ref.model_dump(by_alias=True)
            found.append((of_knowledge(STORE_URL, base.spec.name), key))
        if base.spec.store and base.spec.store.chroma and base.spec.store.chroma.token_secret_key_ref:
            key = base.spec.store.chroma.token_secret_key_ref.model_dump(by_alias=True)
            found.append((of_knowledge(STORE_TOKEN, base.spec.name), key))
    return [{"name": name, "valueFrom": {"secretKeyRef": key}} for name, key in found]


def certificate_volumes(bases: Sequence[Base]) -> list[dict[str, Any]]:
    """The authorities' certificates, where the Secrets have them; else those of the image are trusted."""
    items = [{"key": "ca.crt", "path": "ca.crt"}]
    return [
        {
            "name": f"embedding-{base.spec.name}",
            "secret": {"secretName": base.embedder.tls_secret, "items": items, "optional": True},
        }
        for base in bases
        if base.embedder and base.embedder.tls_secret
    ]


def certificate_mounts(bases: Sequence[Base]) -> list[dict[str, Any]]:
    return [
        {
            "name": f"embedding-{base.spec.name}",
            "mountPath": f"{EMBEDDINGS}/{base.spec.name}",
            "readOnly": True,
        }
        for base in bases
        if base.embedder and base.embedder.tls_secret
    ]
