"""Names and addresses of a serving's children. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from llm_operator.api.common import GROUP
from llm_operator.kube import labels, names
from llm_operator.kube.plan import Manifest

CONTAINER = "vllm"
FETCHER = "fetch"  # container of a Job's pod; those of a serving's own pods have a number behind it
PORT = 8000  # of the container
LAUNCHER_PORT = 9401  # of trainer_image/llm_server/launch.py: /startup, /ready, /live and /start
ENDING = "-serving"
FETCHES_FOR = (
    f"{GROUP}/fetches-for"  # label of Jobs and their pods, which neither Service nor PodDisruptionBudget select
)


class ServicePort(NamedTuple):
    """``name``: the scheme of its URLs, by which a mesh knows it, too."""

    name: str
    port: int


HTTP, HTTPS = ServicePort("http", 80), ServicePort("https", 443)


def child_name(serving: str) -> str:
    """Of the Deployment, the Service and the PodDisruptionBudget; not the bare name, which may be a user's Service."""
    return names.child_name(serving, ENDING, "s")


def fetch_name(serving: str, mark: str) -> str:
    """Of a Job."""
    return names.child_name(serving, f"-{FETCHER}-{mark}", "s")


def fetch_labels(serving: Manifest) -> dict[str, str]:
    return {labels.MANAGED_BY: labels.OPERATOR, FETCHES_FOR: serving["metadata"]["name"]}


def fetches_for(found: Manifest) -> bool:
    """Whether it is a Job that fetches, or belongs to one."""
    return FETCHES_FOR in (found["metadata"].get("labels") or {})


def url(serving: Manifest, service: Manifest) -> str:
    """Base URL of the OpenAI API inside the cluster, as its Service is."""
    metadata = serving["metadata"]
    ports = [port.get("port") for port in (service.get("spec") or {}).get("ports") or ()]
    scheme = HTTPS.name if HTTPS.port in ports else HTTP.name
    return f"{scheme}://{child_name(metadata['name'])}.{metadata['namespace']}.svc/v1"


def selector(serving: Manifest) -> dict[str, str]:
    return {labels.MANAGED_BY: labels.OPERATOR, labels.SERVING: serving["metadata"]["name"]}


def selector_text(serving: Manifest) -> str:
    """As the scale subresource wants it."""
    return ",".join(f"{key}={value}" for key, value in selector(serving).items())


def common_metadata(serving: Manifest, owner_reference: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": child_name(serving["metadata"]["name"]),
        "namespace": serving["metadata"]["namespace"],
        "labels": selector(serving),
        "ownerReferences": [owner_reference],
    }
