"""The children that make one revision of a knowledge base: a ConfigMap and a Job. Pure."""

from __future__ import annotations

from typing import Any

from llm_app.config import CONFIG_FOLDER, INDEX_FILE, SOURCES, IndexConfig, IndexSource
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.knowledge import KnowledgeSource
from llm_operator.apps import names
from llm_operator.apps.configuration import store_of
from llm_operator.apps.knowledge import Base, claims_of, folder_of
from llm_operator.apps.knowledge_secrets import certificate_mounts, certificate_volumes, knowledge_secrets
from llm_operator.kube import labels
from llm_operator.kube.plan import Manifest
from llm_operator.kube.single_job import module_container, single_job, single_pod
from llm_operator.kube.templates import (
    SCRATCH_MOUNTS,
    SCRATCH_VOLUMES,
    marked,
    pod_template,
    resource_requirements,
    variables,
)
from llm_trainer.config import local_path

TRIES = 3  # of what may pass by: a full disk, a lost node
READ_ONLY = {"readOnly": True}
ENVIRONMENT = {"HOME": "/tmp"}  # noqa: S108 -- the pod's own emptyDir


def index_children(
    app: Manifest, spec: LLMAppSpec, base: Base, keep: list[str], image: str, pull_secrets: tuple[str, ...]
) -> tuple[Manifest, ...]:
    """In the order in which they must exist. ``keep``: revisions that stay in the folder."""
    name = names.index_name(app["metadata"]["name"], base.spec.name, base.wanted)
    told = {labels.COMPONENT: names.INDEX, labels.KNOWLEDGE: base.spec.name, names.REVISION: base.wanted}
    metadata = names.metadata_of(app, name, told)
    config = IndexConfig(
        knowledge=base.spec.name,
        revision=base.wanted,
        folder="" if base.spec.store else local_path(folder_of(app, spec, base.spec.name)),
        keep=keep,
        used=base.uri.rpartition("/")[2],
        embedding=base.embedder and base.embedder.settings,
        store=store_of(app, base.spec),
        chunking=base.spec.chunking,
        sources=[source_of(source) for source in base.spec.sources],
    )
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {INDEX_FILE: config.model_dump_json(by_alias=True, exclude_none=True, indent=1)},
    }
    pod = pod_spec(spec, base, name, image)
    return marked(config_map), marked(job(app, spec, pod, metadata, pull_secrets))


def source_of(source: KnowledgeSource) -> IndexSource:
    where: dict[str, Any] = {"path": local_path(source.uri)} if source.uri else {}
    if source.inline:
        where = {"documents": source.inline}
    elif source.config_map:
        where = {"path": f"{SOURCES}/{source.name}", "all_are_text": True}
    elif source.https:
        where = {"urls": source.https.urls, "allowed_networks": source.https.allowed_networks}
    return IndexSource(name=source.name, metadata=source.metadata, **where)


def job(
    app: Manifest, spec: LLMAppSpec, pod: dict[str, Any], metadata: dict[str, Any], pull_secrets: tuple[str, ...]
) -> Manifest:
    selector = {**names.own_labels(app), labels.COMPONENT: metadata["labels"][labels.COMPONENT]}
    template = pod_template(spec.pods, {"labels": metadata["labels"]}, pod, selector, pull_secrets)
    return single_job(metadata, template, TRIES)


def pod_spec(spec: LLMAppSpec, base: Base, name: str, image: str) -> dict[str, Any]:
    claims = claims_of(spec, base.spec)
    maps = [source for source in base.spec.sources if source.config_map]
    volumes: list[dict[str, Any]] = [{"name": "config", "configMap": {"name": name}}, *SCRATCH_VOLUMES]
    volumes += [
        {"name": f"claim-{at}", "persistentVolumeClaim": {"claimName": claim}} for at, claim in enumerate(claims)
    ]
    volumes += [{"name": f"source-{at}", "configMap": config_map_of(source)} for at, source in enumerate(maps)]
    volumes += certificate_volumes([base])
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": f"{CONFIG_FOLDER}/{INDEX_FILE}", "subPath": INDEX_FILE, "readOnly": True},
        *SCRATCH_MOUNTS,
    ]
    mounts += [
        {"name": f"claim-{at}", "mountPath": f"/volumes/{claim}", **(READ_ONLY if at or base.spec.store else {})}
        for at, claim in enumerate(claims)
    ]
    mounts += certificate_mounts([base])
    mounts += [
        {"name": f"source-{at}", "mountPath": f"{SOURCES}/{source.name}", "readOnly": True}
        for at, source in enumerate(maps)
    ]
    return job_pod(spec, image, "llm_app.index", knowledge_secrets([base]), volumes, mounts)


def job_pod(
    spec: LLMAppSpec,
    image: str,
    module: str,
    secrets: list[dict[str, Any]],
    volumes: list[dict[str, Any]],
    mounts: list[dict[str, Any]],
) -> dict[str, Any]:
    """That runs a module of the app's image once. ``secrets``: environment variables beside those of all."""
    environment = [*variables(ENVIRONMENT), *secrets]
    resources = resource_requirements(spec.resources)
    return single_pod(module_container(names.CONTAINER, image, module, environment, resources, mounts), volumes)


def config_map_of(source: KnowledgeSource) -> dict[str, Any]:
    named = source.config_map
    assert named  # noqa: S101 -- chosen so
    items = {"items": [{"key": key, "path": key} for key in named.keys]} if named.keys else {}
    return {"name": named.name, **items}
