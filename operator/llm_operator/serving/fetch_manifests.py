"""What fetches for a serving: a Job, and an init container of each pod whose cache is its own. Pure.

Both run the trainer image, which has what data preparation fetches with; a serving's image may be any with vLLM.
"""

from __future__ import annotations

from typing import Any

from llm_operator.api.serving import LLMServingSpec
from llm_operator.kube.credentials import credential_mounts, credential_volumes, mounted_credentials
from llm_operator.kube.plan import Manifest
from llm_operator.kube.single_job import module_container, single_job, single_pod
from llm_operator.kube.templates import (
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
from llm_operator.serving.fetching import Fetch, remote_uris
from llm_trainer.config import CACHE, ModelFetch, RemoteInput
from llm_trainer.config.remote import FETCH_ENVIRONMENT, FETCH_VARIABLE
from llm_trainer.protocol import PROGRESS_PORT

VOLUME = "model-cache"
TRIES = 4  # of what may pass by; each try of the fetcher has many of its own
MEMORY = "1Gi"  # the fetcher holds a few blocks of each of eight files


def fetch_job(
    serving: Manifest, spec: LLMServingSpec, fetch: Fetch, image: str, pull_secrets: tuple[str, ...]
) -> Manifest:
    own = names.fetch_labels(serving)
    only_looks = bool(spec.model_cache and spec.model_cache.empty_dir)
    volumes = [*SCRATCH_VOLUMES, *([] if only_looks else [cache_volume(spec)]), *secret_volumes(spec)]
    container = fetcher(spec, names.FETCHER, fetch.field, fetch.uri, fetch.held_to, image, cached=not only_looks)
    container["ports"] = [{"name": "progress", "containerPort": PROGRESS_PORT}]
    pods = spec.pods.model_copy(update={"resource_claims": []})  # devices are vLLM's
    metadata = {
        "name": fetch.job_name,
        "namespace": serving["metadata"]["namespace"],
        "labels": own,
        "ownerReferences": [owner_reference(serving)],
    }
    template = pod_template(pods, {"labels": own}, single_pod(container, volumes), own, pull_secrets)
    return marked(single_job(metadata, template, TRIES))


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
        input=RemoteInput(field=field, uri=uri, use="model", revision=revision),
        cache=f"{MODELS}/{CACHE}" if cached else "",
        credentials=mounted_credentials(spec.credentials),
    )
    environment = {
        "HOME": "/tmp",  # noqa: S108 -- the pod's own emptyDir
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        **FETCH_ENVIRONMENT,
        FETCH_VARIABLE: wanted.model_dump_json(by_alias=True).replace("$", "$$"),
    }
    mounts = [*SCRATCH_MOUNTS, *([cache_mount()] if cached else []), *credential_mounts(wanted.credentials)]
    resources: dict[str, Any] = {"requests": dict(REQUESTS), "limits": {"memory": MEMORY}}
    return module_container(name, image, "llm_trainer.storage.for_serving", variables(environment), resources, mounts)


def secret_volumes(spec: LLMServingSpec) -> list[dict[str, Any]]:
    """Of whatever fetches."""
    return credential_volumes(mounted_credentials(spec.credentials))


def cache_volume(spec: LLMServingSpec, *, read_only: bool = False) -> dict[str, Any]:
    assert spec.model_cache  # noqa: S101 -- only asked for with one
    if claim := spec.model_cache.persistent_volume_claim:
        found: dict[str, Any] = {"claimName": claim.claim_name, **({"readOnly": True} if read_only else {})}
        return {"name": VOLUME, "persistentVolumeClaim": found}
    assert spec.model_cache.empty_dir  # noqa: S101 -- one of the two
    return {"name": VOLUME, "emptyDir": {"sizeLimit": spec.model_cache.empty_dir.size_limit}}


def cache_mount(*, read_only: bool = False) -> dict[str, Any]:
    return {"name": VOLUME, "mountPath": MODELS, **({"readOnly": True} if read_only else {})}
