"""The children that bring a result to a bucket or a hub: a Job of one pod and, where any are made, its NetworkPolicy.

The Job is the record of a publication until the status tells its end. Pure.
"""

from __future__ import annotations

from typing import Any

from llm_operator.api.resolve import pods_of
from llm_operator.api.resources import Resources
from llm_operator.api.training import LLMTrainingSpec, Publication
from llm_operator.api.training_status import Result
from llm_operator.kube import labels
from llm_operator.kube.credentials import credential_mounts, credential_volumes, mounted_credentials
from llm_operator.kube.network import Network, policy
from llm_operator.kube.plan import Manifest
from llm_operator.kube.single_job import module_container, single_job, single_pod
from llm_operator.kube.templates import (
    SCRATCH_MOUNTS,
    SCRATCH_VOLUMES,
    marked,
    owner_reference,
    pod_template,
    resource_requirements,
    variables,
)
from llm_operator.training.manifests import CONTAINER, JOB_NAME_LABEL
from llm_operator.training.names import child_name, digest
from llm_trainer.config import PUBLISH_VARIABLE, MountedCredentials, PublishConfig, claim_of, parse

TRIES = 9  # the Job controller waits 10 s, 20 s … 6 minutes between them
RESOURCES = Resources(limits={"cpu": "2", "memory": "2Gi"}, requests={"cpu": "100m", "memory": "512Mi"})
ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 -- the pod's own emptyDir
    "HF_HOME": "/tmp/huggingface",  # noqa: S108
    "HF_HUB_OFFLINE": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_XET": "1",  # by LFS, which every hub speaks, and which tells what it has by its digest
}


def publication_name(training: Manifest, stage: str, to: str, result: str, attempt: int) -> str:
    """Of a Job. ``result``: its digest; another one is another publication."""
    metadata = training["metadata"]
    place = f"publish-{digest(f'{stage} {to} {result}')[:8]}"
    return child_name(metadata["name"], metadata["uid"], place, attempt)


def publication(
    training: Manifest,
    spec: LLMTrainingSpec,
    entry: Publication,
    stage: str,
    result: Result,
    name: str,
    image: str,
    pull_secrets: tuple[str, ...] = (),
    network: Network | None = None,
) -> tuple[Manifest, ...]:
    """In the order in which they must exist."""
    metadata = training["metadata"]
    common: dict[str, Any] = {
        "name": name,
        "namespace": metadata["namespace"],
        "labels": {
            labels.MANAGED_BY: labels.OPERATOR,
            labels.TRAINING: metadata["name"],
            labels.PUBLICATION: stage,
        },
        "ownerReferences": [owner_reference(training)],
    }
    config = PublishConfig(
        training=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        stage=stage,
        result=result.uri,
        digest=result.digest,
        to=entry.to,
        private=entry.private,
        credentials=credentials_of(spec, entry),
    )
    # as data preparation's, which reaches the same hubs and buckets: service account, mirror, proxy
    template = pod_template(
        pods_of(spec, None),
        {"labels": common["labels"]},
        pod_spec(config, image),
        {JOB_NAME_LABEL: name},
        pull_secrets,
    )
    made = [single_job(common, template, TRIES)]
    if network:
        # it reaches hubs and buckets, whose addresses only their names tell; nobody reaches it
        out = [*network.egress, {"ports": [{"protocol": "TCP"}]}]
        made.insert(0, policy(common, {JOB_NAME_LABEL: name}, [], out))
    return tuple(marked(manifest) for manifest in made)


def credentials_of(spec: LLMTrainingSpec, entry: Publication) -> list[MountedCredentials]:
    """Of its own hub or bucket alone."""
    target = parse(entry.to).target
    return [each for each in mounted_credentials(spec.credentials) if each.target == target]


def pod_spec(config: PublishConfig, image: str) -> dict[str, Any]:
    claim = claim_of(config.result)
    folder = config.result.removeprefix(f"pvc://{claim}/")
    mounts: list[dict[str, Any]] = [
        *SCRATCH_MOUNTS,
        {"name": "result", "mountPath": f"/volumes/{claim}/{folder}", "subPath": folder, "readOnly": True},
        *credential_mounts(config.credentials),
    ]
    volumes: list[dict[str, Any]] = [
        *SCRATCH_VOLUMES,
        {"name": "result", "persistentVolumeClaim": {"claimName": claim}},
        *credential_volumes(config.credentials),
    ]
    told = variables({**ENVIRONMENT, PUBLISH_VARIABLE: config.model_dump_json(by_alias=True)})
    resources = resource_requirements(RESOURCES)
    return single_pod(
        module_container(CONTAINER, image, "llm_trainer.storage.publish", told, resources, mounts), volumes
    )
