"""Whom an app's pods reach, and who reaches them: a NetworkPolicy of its server, and one of each Job. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from llm_app.config import PORT
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.knowledge import KnowledgeBase
from llm_operator.apps import names
from llm_operator.apps.teams import egress
from llm_operator.kube import labels
from llm_operator.kube.network import ALL, Network, internet, job_policy, namespaces, pods, policy, tcp
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import marked


def server_policy(app: Manifest, spec: LLMAppSpec, metadata: dict[str, Any], network: Network) -> Manifest:
    """In: requests of namespaces that may. Out: DNS, and what an answer asks."""
    own = str(metadata["namespace"])
    peers = [namespaces(sorted({own, *spec.allowed_namespaces})), *network.serving_from, *network.metrics_from]
    everybody = ALL in spec.allowed_namespaces  # also who is no pod, such as a load balancer
    ingress = [tcp(PORT, [] if everybody else peers)]
    return policy(metadata, names.selector(app), ingress, [*asked(spec, own), *network.egress])


def index_policy(metadata: dict[str, Any], base: KnowledgeBase, network: Network | None) -> tuple[Manifest, ...]:
    """Of a Job's pods, if any are made. Nobody reaches them; out: what embeds, and pages of the network."""
    out = [servings([base.embedding.serving.name])] if base.embedding else []
    out += stores([base])
    pages = [source.https for source in base.sources if source.https]
    if pages:
        out.append({"to": internet(sorted({one for page in pages for one in page.allowed_networks}))})
    return (marked(job_policy(metadata, network, egress=out)),) if network else ()


def evaluation_policy(metadata: dict[str, Any], spec: LLMAppSpec, network: Network | None) -> tuple[Manifest, ...]:
    """Of a Job's pods, if any are made. Nobody reaches them; they ask as the server does, without its sessions."""
    alone = spec.model_copy(update={"sessions": None})
    out = [*asked(alone, str(metadata["namespace"]))]
    return (marked(job_policy(metadata, network, egress=out)),) if network else ()


def asked(spec: LLMAppSpec, own: str) -> Iterator[Manifest]:
    """By an answer: the model, what embeds questions, stores, tools, sessions. ``own``: the app's namespace."""
    embedders = (one.embedding.serving.name for one in spec.knowledge if one.embedding)
    yield servings([spec.model.serving.name, *embedders])
    yield from stores(spec.knowledge)
    yield from egress(spec, own)


def stores(knowledge: Iterable[KnowledgeBase]) -> Iterator[Manifest]:
    """A rule for the ports of those whose URL the spec has; a database's is in a Secret, which nobody here reads."""
    urls = {one.store.chroma.url for one in knowledge if one.store and one.store.chroma}
    ports = {url.port or (443 if url.scheme == "https" else 80) for url in map(urlsplit, urls)}
    if ports:
        yield {"ports": [{"port": port, "protocol": "TCP"} for port in sorted(ports)]}


def servings(called: Iterable[str]) -> Manifest:
    """A rule for their pods, of the same namespace."""
    found = dict.fromkeys(called)
    return {"to": [pods({labels.MANAGED_BY: labels.OPERATOR, labels.SERVING: name}) for name in found]}
