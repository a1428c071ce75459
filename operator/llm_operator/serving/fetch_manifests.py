"""What fetches for a serving: a Job, and an init container of each pod whose cache is its own. Pure.

Both run the trainer image, which has what data preparation fetches with; a serving's image may be any with vLLM.
"""

from __future__ import annotations

from typing import Any

from llm_operator.api.serving import LLMServingSpec
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    REQUESTS,
    SCRATCH_MOUNTS,
    SCRATCH_VOLUMES,
    marked,
    owner_reference,
    pod_template,
    variables,
)
from llm_operator.serving import names
from llm_operator.serving.annotations import MODELS
from llm_operator.serving.fetching import Fetch, allows_pickle, remote_uris
from llm_trainer.config import CACHE, ModelFetch, MountedCredentials, RemoteInput
from llm_trainer.config.remote import FETCH_ENVIRONMENT, FETCH_VARIABLE
from llm_trainer.protocol import PROGRESS_PORT, ExitCode

CREDENTIALS = "/etc/llm-operator/credentials"  # a folder for each of spec.credentials
VOLUME = "model-cache"
TRIES = 4  # of what may pass by; each try of the fetcher has many of its own
FOR_GOOD = (ExitCode.DATA, ExitCode.CONFIGURATION)  # no try mends them
MEMORY = "1Gi"  # the fetcher holds a few blocks of each of eight files


def fetch_job(
    serving: Manifest, spec: LLMServingSpec, fetch: Fetch, image: str, pull_secrets: tuple[str, ...]
) -> Manifest:
    own = names.fetch_labels(serving)
    only_looks = bool(spec.model_cache and spec.model_cache.empty_dir)
    volumes = [] if only_looks else [cache_volume(spec)]
    container = fetcher(spec, names.FETCHER, fetch.field, fetch.uri, fetch.held_to, image, cached=not only_looks)
    pods = spec.pods.model_copy(update={"resource_claims": []})  # devices are vLLM's
    return marked(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": fetch.job_name,
                "namespace": serving["metadata"]["namespace"],
                "labels": own,
                "ownerReferences": [owner_reference(serving)],
            },
            "spec": {
                "backoffLimit": TRIES - 1,
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "FailJob",
                            "onExitCodes": {
                                "containerName": names.FETCHER, "operator": "In", "values": [*map(int, FOR_GOOD)],
                            },
                        },
                        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    ]
                },
                "template": pod_template(
                    pods,
                    {"labels": own},
                    {
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": False,
                        "enableServiceLinks": False,
                        "securityContext": POD_SECURITY,
                        "containers": [container],
                        "volumes": [*SCRATCH_VOLUMES, *volumes, *credential_volumes(spec)],
                    },
                    own,
                    pull_secrets,
                ),
            },
        }
    )  # fmt: skip


def init_containers(spec: LLMServingSpec, served: dict[str, str], image: str) -> list[dict[str, Any]]:
    """Of a pod with a cache of its own: one for each URI that it serves, held to the revision that was found.

    ``served``: revisions by URI.
    """
    if not spec.model_cache or not spec.model_cache.empty_dir:
        return []
    fields = remote_uris(spec)
    return [
        fetcher(spec, f"{names.FETCHER}-{index}", fields.get(uri, "spec.model.uri"), uri, revision, image)
        for index, (uri, revision) in enumerate(served.items())
    ]


def fetcher(
    spec: LLMServingSpec, name: str, field: str, uri: str, revision: str, image: str, *, cached: bool = True
) -> dict[str, Any]:
    """The container. It alone mounts the Secrets, and writes the cache."""
    wanted = ModelFetch(
        input=RemoteInput(field=field, uri=uri, use="model", revision=revision, allow_pickle=allows_pickle(spec, uri)),
        cache=f"{MODELS}/{CACHE}" if cached else "",
        credentials=mounted_credentials(spec),
    )
    environment = {
        "HOME": "/tmp",  # noqa: S108 -- the pod's own emptyDir
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        **FETCH_ENVIRONMENT,
        FETCH_VARIABLE: wanted.model_dump_json(by_alias=True).replace("$", "$$"),
    }
    mounts: list[dict[str, Any]] = [*SCRATCH_MOUNTS, *([cache_mount()] if cached else [])]
    mounts += [
        {"name": f"credential-{index}", "mountPath": each.folder, "readOnly": True}
        for index, each in enumerate(mounted_credentials(spec))
    ]
    return {
        "name": name,
        "image": image,
        "command": ["python", "-m", "llm_trainer.storage.for_serving"],
        "env": variables(environment),
        "ports": [{"name": "progress", "containerPort": PROGRESS_PORT}] if name == names.FETCHER else [],
        "resources": {"requests": dict(REQUESTS), "limits": {"memory": MEMORY}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": mounts,
    }


def mounted_credentials(spec: LLMServingSpec) -> list[MountedCredentials]:
    return [
        MountedCredentials(secret_name=each.secret_name, target=each.target, folder=f"{CREDENTIALS}/{index}")
        for index, each in enumerate(spec.credentials)
    ]


def credential_volumes(spec: LLMServingSpec) -> list[dict[str, Any]]:
    return [
        {"name": f"credential-{index}", "secret": {"secretName": each.secret_name, "defaultMode": 0o440}}
        for index, each in enumerate(spec.credentials)
    ]


def cache_volume(spec: LLMServingSpec, *, read_only: bool = False) -> dict[str, Any]:
    assert spec.model_cache  # noqa: S101 -- only asked for with one
    if claim := spec.model_cache.persistent_volume_claim:
        found: dict[str, Any] = {"claimName": claim.claim_name, **({"readOnly": True} if read_only else {})}
        return {"name": VOLUME, "persistentVolumeClaim": found}
    assert spec.model_cache.empty_dir  # noqa: S101 -- one of the two
    return {"name": VOLUME, "emptyDir": {"sizeLimit": spec.model_cache.empty_dir.size_limit}}


def cache_mount(*, read_only: bool = False) -> dict[str, Any]:
    return {"name": VOLUME, "mountPath": MODELS, **({"readOnly": True} if read_only else {})}
