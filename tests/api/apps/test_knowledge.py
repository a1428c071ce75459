"""Embedding, refreshing and stores of an app's knowledge, on the real API server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.apps.conftest import CHILD, SPEC, AppLab
from tests.specs import changed

DOCUMENTS = {"name": "manual", "sources": [{"name": "notes", "inline": [{"text": "Oil it."}]}]}
EMBEDDED = changed(SPEC, knowledge=[{**DOCUMENTS, "embedding": {"serving": {"name": "embedder"}}}])


def serve_embedder(app: AppLab, model: str) -> None:
    kind = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMServing", "metadata": {"name": "embedder"}}
    app.lab.apply({**kind, "spec": {"model": {"uri": f"pvc://models/{model}"}, "task": "embed"}})


def revision(app: AppLab) -> str:
    """That the pods have."""
    found: str = app.config()["knowledge"][0]["revision"]
    return found


def reason(app: AppLab) -> str:
    found: str = app.condition("KnowledgeReady")["reason"]
    return found


def test_it_follows_what_embeds(app: AppLab) -> None:
    """Another model is another index, with the one before in use until it is there."""
    app.make(EMBEDDED)
    app.lab.until(lambda: reason(app) == "ServingNotFound")
    serve_embedder(app, "one")
    app.lab.until(lambda: reason(app) == "ServingNotReady")
    assert not app.jobs(), "nothing is tried that can't work"
    running_until(app, lambda: len(app.jobs()) == 1)
    app.end_index(documents=1, chunks=1, dimensions=384, embedded=1)
    app.until_ready()
    assert app.status()["knowledge"][0]["dimensions"] == 384
    first = revision(app)
    assert app.config()["knowledge"][0]["embedding"]["model"] == "pvc://models/one"

    serve_embedder(app, "two")
    running_until(app, lambda: len(app.jobs()) == 2)
    assert revision(app) == first, "the vectors of one model and the questions of another have nothing in common"
    app.end_index(documents=1, chunks=1, dimensions=768, embedded=1)
    running_until(app, lambda: revision(app) != first)
    app.until_ready()
    assert app.status()["knowledge"][0]["dimensions"] == 768
    assert app.config()["knowledge"][0]["embedding"]["model"] == "pvc://models/two"


def running_until(app: AppLab, true: Callable[[], object]) -> None:
    """Pods of servers run meanwhile, as by a kubelet."""
    while not true():
        for pod in app.lab.pods():
            told = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
            if pod["metadata"]["labels"].get("app.kubernetes.io/component") != "index" and told.get("Ready") != "True":
                app.lab.run_pod(pod)
        time.sleep(0.1)


def test_a_store_that_changes_keeps_the_pods_until_it_has_the_knowledge(app: AppLab) -> None:
    database = {"pgvector": {"urlSecretKeyRef": {"name": "database", "key": "url"}}}
    spec = {"model": SPEC["model"], "knowledge": [{**DOCUMENTS, "store": database}]}
    app.make(spec)
    app.end_index()
    app.until_ready()
    first, before = revision(app), template(app)
    assert secret_of(app, "LLM_APP_STORE_URL_MANUAL") == {"name": "database", "key": "url"}

    spec["knowledge"] = [{**DOCUMENTS, "store": changed(database, pgvector__urlSecretKeyRef__name="moved")}]
    app.make(spec)
    app.lab.until(lambda: reason(app) == "Indexing")
    app.change(prompt={"system": "New."})
    app.lab.until(lambda: app.status()["observedGeneration"] == app.lab.get("llmapp", "help")["metadata"]["generation"])
    assert (revision(app), template(app)) == (first, before), "in the new database is nothing yet"
    app.end_index()
    app.lab.until(lambda: revision(app) != first)
    assert secret_of(app, "LLM_APP_STORE_URL_MANUAL") == {"name": "moved", "key": "url"}
    assert app.config()["prompt"]["system"] == "New."
    app.until_ready()

    second = revision(app)
    chroma = {"url": "http://chroma.data.svc:8000", "tokenSecretKeyRef": {"name": "chroma", "key": "token"}}
    app.change(knowledge=[{**DOCUMENTS, "store": {"chroma": chroma}}])
    app.lab.until(lambda: reason(app) == "Indexing")
    app.end_index(65, problem="Chroma has no database default_database of tenant default_tenant; create it")
    app.lab.until(lambda: reason(app) == "IndexFailed")
    assert "create it" in app.condition("KnowledgeReady")["message"]
    assert (revision(app), app.condition("Ready")["status"], app.status()["phase"]) == (second, "True", "Degraded")
    app.lab.kubectl("delete", "job", app.status()["knowledge"][0]["job"])
    app.end_index()
    app.lab.until(lambda: revision(app) != second)
    assert secret_of(app, "LLM_APP_STORE_TOKEN_MANUAL") == {"name": "chroma", "key": "token"}
    app.until_ready()


def template(app: AppLab) -> Any:
    return app.lab.get("deployment", CHILD)["spec"]["template"]


def secret_of(app: AppLab, variable: str) -> dict[str, str]:
    """Which the pods are given."""
    [container] = template(app)["spec"]["containers"]
    [found] = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == variable]
    return {"name": found["name"], "key": found["key"]}


@pytest.mark.release  # a minute is the shortest time
def test_what_is_read_again_rolls_out_nothing_where_nothing_has_changed(app: AppLab) -> None:
    app.make(changed(SPEC, knowledge=[{**DOCUMENTS, "refreshSeconds": 60}]))
    app.end_index()
    app.until_ready()
    first, before = revision(app), template(app)

    def nothing_has_changed() -> bool:
        if any(pod["status"]["phase"] == "Pending" for pod in app.index_pods()):
            app.end_index(documents=1, chunks=1, same=first)
        return "nothing has changed" in app.condition("KnowledgeReady")["message"]

    app.lab.until(nothing_has_changed)
    assert template(app) == before
    assert app.status()["knowledge"][0]["activeRevision"] == first
