"""Deployment, Service, PodDisruptionBudget, NetworkPolicy and configuration of an app's server. Pure.

A rollout loses no request: a new pod must answer before an old one goes, and an old one first leaves the Service
(preStop), then finishes what it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_app.config import API_KEY, CERTIFICATES, CONFIG_FOLDER, MODEL_API_KEY, PORT, SERVER_FILE, TLS, Server
from llm_app.team import SESSIONS_FOLDER
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.resolve import LEAVE_SECONDS
from llm_operator.apps import names
from llm_operator.apps.configuration import DRAIN_SECONDS, server_of
from llm_operator.apps.knowledge import Base
from llm_operator.apps.knowledge_secrets import certificate_mounts, certificate_volumes, knowledge_secrets
from llm_operator.apps.model import Choice
from llm_operator.apps.networks import server_policy
from llm_operator.apps.teams import document_claims, document_volumes, secrets
from llm_operator.kube import labels
from llm_operator.kube.network import Network
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    SCRATCH_MOUNTS,
    SCRATCH_VOLUMES,
    marked,
    pod_template,
    resource_requirements,
    variables,
)
from llm_trainer.config import claim_of

STARTUP_SECONDS = 600  # to load an index of half a million chunks
ENVIRONMENT = {"HOME": "/tmp"}  # noqa: S108 -- the pod's own emptyDir


def addressed(app: Manifest, spec: LLMAppSpec, network: Network | None) -> tuple[Manifest, ...]:
    """The children that an app has whatever answers: Service, PodDisruptionBudget and, if any, NetworkPolicy."""
    metadata = metadata_of(app)
    made = [service(app, spec, metadata), disruption_budget(app, metadata)]
    if network:
        made.append(server_policy(app, spec, metadata, network))
    return tuple(map(marked, made))


def metadata_of(app: Manifest) -> dict[str, Any]:
    return names.metadata_of(app, names.child_name(app["metadata"]["name"]), {labels.COMPONENT: names.SERVER})


def service(app: Manifest, spec: LLMAppSpec, metadata: dict[str, Any]) -> Manifest:
    port = names.HTTPS_PORT if spec.tls else names.HTTP_PORT
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": names.selector(app),
            "ports": [{"name": "http", "port": port, "targetPort": "http"}],
        },
    }


def disruption_budget(app: Manifest, metadata: dict[str, Any]) -> Manifest:
    """One pod at a time; it must not block the drain of a node of one pod, nor for a pod that doesn't answer."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(app)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def config_map(app: Manifest, config: Server) -> Manifest:
    """Immutable, and named by its content: another one is a rollout."""
    name = names.config_name(app["metadata"]["name"], config.revision)
    return marked(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": names.metadata_of(app, name, {labels.COMPONENT: names.SERVER}),
            "immutable": True,
            "data": {SERVER_FILE: config.model_dump_json(by_alias=True, exclude_none=True, indent=1)},
        }
    )


def workload(
    app: Manifest,
    spec: LLMAppSpec,
    choice: Choice,
    bases: Sequence[Base],
    documents: Mapping[str, str],
    image: str,
    pull_secrets: tuple[str, ...],
) -> tuple[Manifest, Manifest]:
    """The ConfigMap of the configuration, and the Deployment. ``documents``: digests of those of tools."""
    assert choice.model  # noqa: S101 -- the caller has looked
    config = server_of(app, spec, choice.model, bases, documents)
    folders = {base.spec.name: base.uri for base in bases}
    made = config_map(app, config)
    template = pod_template(
        spec.pods,
        {"labels": names.selector(app), "annotations": {names.KNOWLEDGE: json.dumps(folders, sort_keys=True)}},
        pod_spec(app["metadata"]["name"], spec, choice, bases, made["metadata"]["name"], image),
        names.selector(app),
        pull_secrets,
    )
    return made, marked(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata_of(app),
            "spec": {
                "replicas": spec.replicas,
                "selector": {"matchLabels": names.selector(app)},
                "strategy": strategy(spec),
                "progressDeadlineSeconds": STARTUP_SECONDS + 60,
                "revisionHistoryLimit": 2,
                "template": template,
            },
        }
    )


def strategy(spec: LLMAppSpec) -> dict[str, Any]:
    """Two pods must not write one file of SQLite."""
    if spec.sessions and spec.sessions.persistent_volume_claim:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def pod_spec(
    app: str, spec: LLMAppSpec, choice: Choice, bases: Sequence[Base], config: str, image: str
) -> dict[str, Any]:
    volumes, mounts = mounted(spec, choice, bases, config)
    if spec.sessions and (claim := spec.sessions.persistent_volume_claim):
        name = claim_volume(volumes, claim.claim_name, written=True)["name"]
        mounts.append({"name": name, "mountPath": SESSIONS_FOLDER, "subPath": f"sessions/{app}"})
    if spec.tls:
        items = [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]
        volumes.append({"name": "tls", "secret": {"secretName": spec.tls.secret_name, "items": items}})
        mounts.append({"name": "tls", "mountPath": TLS, "readOnly": True})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS + LEAVE_SECONDS + 10,
        "securityContext": POD_SECURITY,
        "containers": [container(spec, choice, bases, image, mounts)],
        "volumes": volumes,
    }


def claim_volume(volumes: list[dict[str, Any]], claim: str, *, written: bool = False) -> dict[str, Any]:
    """One for each claim: a kubelet may wait for ever for a second one."""
    found = [one for one in volumes if (one.get("persistentVolumeClaim") or {}).get("claimName") == claim]
    if not found:
        named = {"claimName": claim, "readOnly": True}
        found = [{"name": f"claim-{len(volumes)}", "persistentVolumeClaim": named}]
        volumes += found
    if written:
        found[0]["persistentVolumeClaim"].pop("readOnly", None)
    return found[0]


def mounted(
    spec: LLMAppSpec, choice: Choice, bases: Sequence[Base], config: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts of whatever answers by a configuration: it, its indexes, documents of its tools and the
    authorities of its models.
    """
    claims = sorted({*(claim for base in bases if (claim := claim_of(base.uri))), *document_claims(spec)})
    volumes: list[dict[str, Any]] = [{"name": "config", "configMap": {"name": config}}, *SCRATCH_VOLUMES]
    volumes += [
        {"name": f"claim-{at}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for at, claim in enumerate(claims)
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": f"{CONFIG_FOLDER}/{SERVER_FILE}", "subPath": SERVER_FILE, "readOnly": True},
        *SCRATCH_MOUNTS,
    ]
    mounts += [
        {"name": f"claim-{at}", "mountPath": f"/volumes/{claim}", "readOnly": True} for at, claim in enumerate(claims)
    ]
    for volume, mount in document_volumes(spec):
        volumes.append(volume)
        mounts.append(mount)
    volumes += certificate_volumes(bases)
    mounts += certificate_mounts(bases)
    if choice.tls_secret:  # its authority's certificate, if the Secret has it; else the image's are trusted
        items = [{"key": "ca.crt", "path": "ca.crt"}]
        volumes.append({"name": "model", "secret": {"secretName": choice.tls_secret, "items": items, "optional": True}})
        mounts.append({"name": "model", "mountPath": CERTIFICATES.rpartition("/")[0], "readOnly": True})
    return volumes, mounts


def container(
    spec: LLMAppSpec, choice: Choice, bases: Sequence[Base], image: str, mounts: list[dict[str, Any]]
) -> dict[str, Any]:
    own = spec.api_key.secret_key_ref.model_dump(by_alias=True) if spec.api_key else None
    hidden = keys({API_KEY: own, MODEL_API_KEY: choice.api_key, **secrets(spec)})
    return {
        "name": names.CONTAINER,
        "image": image,
        "command": ["python", "-m", "llm_app.server"],
        "env": [*variables(ENVIRONMENT), *hidden, *knowledge_secrets(bases)],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": resource_requirements(spec.resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": mounts,
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
        "startupProbe": probe(spec, "/ready", 1, STARTUP_SECONDS),
        "readinessProbe": probe(spec, "/ready", 5, 3),
        "livenessProbe": probe(spec, "/health", 10, 6),
    }


def keys(references: Mapping[str, dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Environment variables of Secrets, of those that there are."""
    return [{"name": name, "valueFrom": {"secretKeyRef": key}} for name, key in references.items() if key]


def probe(spec: LLMAppSpec, path: str, period: int, failures: int) -> dict[str, Any]:
    scheme = {"scheme": "HTTPS"} if spec.tls else {}  # the kubelet asks for no certificate that it knows
    return {
        "httpGet": {"path": path, "port": "http", **scheme},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
