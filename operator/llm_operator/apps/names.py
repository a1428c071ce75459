"""Names, labels and addresses of an app's children. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_operator.api.common import GROUP
from llm_operator.kube import labels, names
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import owner_reference

CONTAINER = "app"
ENDING = "-app"
SERVER, INDEX, EVALUATION = "server", "index", "evaluation"  # components
REVISION = f"{GROUP}/revision"  # label of a Job: what it makes, or asks
KNOWLEDGE = f"{GROUP}/knowledge"  # annotation of the server's pods: JSON, name → folder of the revision
HTTP_PORT, HTTPS_PORT = 80, 443  # of the Service


def child_name(app: str) -> str:
    """Of the Deployment, the Service, the PodDisruptionBudget and the NetworkPolicy."""
    return names.child_name(app, ENDING, "a")


def config_name(app: str, revision: str) -> str:
    return names.child_name(app, f"{ENDING}-{revision}", "a")


def index_name(app: str, knowledge: str, revision: str) -> str:
    """Of a Job and its ConfigMap."""
    return names.child_name(app, f"-{knowledge}-{revision}", "a")


def evaluation_name(app: str, revision: str) -> str:
    """Of a Job and its ConfigMap."""
    return names.child_name(app, f"-evaluation-{revision}", "a")


def url(app: Manifest, services: Sequence[Manifest]) -> str | None:
    """Base URL of its OpenAI API inside the cluster, by the Service that is there."""
    if not services:
        return None
    metadata = app["metadata"]
    ports = [port.get("port") for port in (services[0].get("spec") or {}).get("ports") or ()]
    scheme = "https" if HTTPS_PORT in ports else "http"
    return f"{scheme}://{child_name(metadata['name'])}.{metadata['namespace']}.svc/v1"


def own_labels(app: Manifest) -> dict[str, str]:
    return {labels.MANAGED_BY: labels.OPERATOR, labels.APP: app["metadata"]["name"]}


def selector(app: Manifest) -> dict[str, str]:
    """Of the server's pods."""
    return {**own_labels(app), labels.COMPONENT: SERVER}


def selector_text(app: Manifest) -> str:
    """As the scale subresource wants it."""
    return ",".join(f"{key}={value}" for key, value in selector(app).items())


def is_of_job(found: Manifest) -> bool:
    """Whether it is a Job that indexes or evaluates, or belongs to one."""
    return (found["metadata"].get("labels") or {}).get(labels.COMPONENT) in (INDEX, EVALUATION)


def metadata_of(app: Manifest, name: str, more: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": app["metadata"]["namespace"],
        "labels": {**own_labels(app), **more},
        "ownerReferences": [owner_reference(app)],
    }
