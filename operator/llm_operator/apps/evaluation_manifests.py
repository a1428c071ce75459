"""The children that evaluate one configuration: a ConfigMap and a Job. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_app.config import CONFIG_FOLDER, EVALUATION_FILE, MODEL_API_KEY, QUESTIONS, EvaluationConfig
from llm_app.team import SESSIONS_URL
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.app_evaluation import AppEvaluation
from llm_operator.apps import names
from llm_operator.apps.index_manifests import job, job_pod
from llm_operator.apps.knowledge import Base, storage_of
from llm_operator.apps.knowledge_secrets import knowledge_secrets
from llm_operator.apps.manifests import claim_volume, keys, mounted
from llm_operator.apps.model import Choice
from llm_operator.apps.networks import evaluation_policy
from llm_operator.apps.teams import secrets
from llm_operator.kube import labels
from llm_operator.kube.network import Network
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import marked
from llm_trainer.config import claim_of, local_path

QUESTIONS_FILE = "questions.jsonl"
REPORTS = "/volumes/.reports"  # no claim's name begins so
EVALUATION_VOLUME, QUESTIONS_VOLUME = "source-0", "source-1"  # of names that no user's volume may have


def evaluation_children(
    app: Manifest,
    spec: LLMAppSpec,
    evaluation: AppEvaluation,
    choice: Choice,
    bases: Sequence[Base],
    config: str,
    revision: str,
    image: str,
    pull_secrets: tuple[str, ...],
    network: Network | None,
) -> tuple[Manifest, ...]:
    """In the order in which they must exist. ``config``: the ConfigMap that the server would have."""
    name = names.evaluation_name(app["metadata"]["name"], revision)
    metadata = names.metadata_of(app, name, {labels.COMPONENT: names.EVALUATION, names.REVISION: revision})
    asked = evaluation.questions
    told = EvaluationConfig(
        questions=local_path(asked.uri) if asked.uri else f"{QUESTIONS}/{QUESTIONS_FILE}",
        limit=evaluation.limit,
        judge=evaluation.judge,
        report=f"{REPORTS}/{revision}.jsonl" if spec.storage else "",
    )
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {EVALUATION_FILE: told.model_dump_json(by_alias=True, indent=1)},
    }
    volumes, mounts = mounted(spec, choice, bases, config)
    add_own(volumes, mounts, app, spec, evaluation, name)
    hidden = [*keys(secrets_of(spec, choice)), *knowledge_secrets(bases)]
    pod = job_pod(spec, image, "llm_app.evaluate", hidden, volumes, mounts)
    policies = evaluation_policy(metadata, spec, network)
    return marked(config_map), *policies, marked(job(app, spec, pod, metadata, pull_secrets))


def add_own(
    volumes: list[dict[str, Any]],
    mounts: list[dict[str, Any]],
    app: Manifest,
    spec: LLMAppSpec,
    evaluation: AppEvaluation,
    name: str,
) -> None:
    """What a server has not: what is asked, and a folder for reports, of which alone the claim is written."""
    asked = evaluation.questions
    volumes.append({"name": EVALUATION_VOLUME, "configMap": {"name": name}})
    file = f"{CONFIG_FOLDER}/{EVALUATION_FILE}"
    mounts.append({"name": EVALUATION_VOLUME, "mountPath": file, "subPath": EVALUATION_FILE, "readOnly": True})
    if named := asked.config_map:
        items = [{"key": named.key, "path": QUESTIONS_FILE}]
        volumes.append({"name": QUESTIONS_VOLUME, "configMap": {"name": named.name, "items": items}})
        mounts.append({"name": QUESTIONS_VOLUME, "mountPath": QUESTIONS, "readOnly": True})
    elif asked.uri:
        claim = str(claim_of(asked.uri))
        path = f"/volumes/{claim}"
        if path not in [mount["mountPath"] for mount in mounts]:
            mounts.append({"name": claim_volume(volumes, claim)["name"], "mountPath": path, "readOnly": True})
    if spec.storage:
        name = claim_volume(volumes, storage_of(spec), written=True)["name"]
        mounts.append({"name": name, "mountPath": REPORTS, "subPath": report_folder(app)})


def report_folder(app: Manifest) -> str:
    """Of this app alone, inside the storage's claim; no knowledge base can have this name."""
    metadata = app["metadata"]
    return f"llm-apps/{metadata['name']}-{metadata['uid'][:8]}/.evaluations"


def report_of(app: Manifest, spec: LLMAppSpec, revision: str) -> str:
    return f"pvc://{storage_of(spec)}/{report_folder(app)}/{revision}.jsonl" if spec.storage and revision else ""


def secrets_of(spec: LLMAppSpec, choice: Choice) -> dict[str, dict[str, Any] | None]:
    """The model's key and those of tools; sessions are nobody's."""
    of_tools = {name: key for name, key in secrets(spec).items() if name != SESSIONS_URL}
    return {MODEL_API_KEY: choice.api_key, **of_tools}
