"""NetworkPolicies of a gang, a serving, an app and of Jobs, enforced by an engine, between real network namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from llm_app.config import PORT as APP_PORT
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.network import NetworkPolicies
from llm_operator.api.serving import LLMServingSpec
from llm_operator.apps import names as app_names
from llm_operator.apps.networks import evaluation_policy, index_policy, server_policy
from llm_operator.kube.labels import JOB_NAME, MANAGED_BY, OPERATOR
from llm_operator.kube.labels import SERVING as SERVING_LABEL
from llm_operator.kube.network import ANYWHERE, OPERATOR_PODS, Network, job_policy, tcp
from llm_operator.serving.manifests import network_policy
from llm_operator.serving.names import LAUNCHER_PORT, PORT, common_metadata, selector
from llm_operator.training.manifests import gang_policy
from llm_trainer.protocol import PROGRESS_PORT, RENDEZVOUS_PORT
from tests.api.policed import NODE
from tests.app_specs import IN_DATABASE
from tests.cluster import build, policy_engine
from tests.specs import SERVING, changed
from tests.unit.world import custom_resource

MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
NETWORK = Network("operators", NetworkPolicies.model_validate({"enabled": True, "metricsFrom": [MONITORING]}))
GANG = {JOB_NAME: "gang"}
ANY_PORT = 40123  # as gloo and NCCL choose theirs
CHAT = custom_resource("LLMServing", "chat", changed(SERVING, allowedNamespaces=["web"]))
HELP = custom_resource("LLMApp", "help", changed(IN_DATABASE, allowedNamespaces=["web"]))
APP_SPEC = LLMAppSpec.model_validate(HELP["spec"])
PODS = [
    ("team", "rank0", GANG), ("team", "rank1", GANG), ("team", "stranger", {}), ("other", "far", GANG),
    ("operators", "operator", OPERATOR_PODS), ("operators", "neighbour", {}), ("other", "impostor", OPERATOR_PODS),
    ("monitoring", "prometheus", {}), ("web", "client", {}), ("team", "vllm", selector(CHAT)),
    ("team", "embedder", {MANAGED_BY: OPERATOR, SERVING_LABEL: "embedder"}),
    ("team", "server", app_names.selector(HELP)),
    *[("team", job, {JOB_NAME: job}) for job in ("fetch", "publish", "index", "evaluate")],
]  # fmt: skip
QUESTIONS = [
    ("rank1", "rank0", RENDEZVOUS_PORT, True),
    ("rank0", "rank1", ANY_PORT, True),
    ("stranger", "rank0", RENDEZVOUS_PORT, False),
    ("stranger", "rank0", PROGRESS_PORT, False),
    ("stranger", "rank1", ANY_PORT, False),
    ("far", "rank0", RENDEZVOUS_PORT, False),  # the label counts in the training's namespace alone
    ("operator", "rank0", PROGRESS_PORT, True),
    ("operator", "rank0", RENDEZVOUS_PORT, False),
    ("neighbour", "rank0", PROGRESS_PORT, False),
    ("impostor", "rank0", PROGRESS_PORT, False),
    ("prometheus", "rank0", PROGRESS_PORT, True),
    ("prometheus", "rank0", ANY_PORT, False),
    ("rank0", "stranger", ANY_PORT, False),
    ("rank0", "vllm", PORT, False),
    ("rank0", "stranger", 53, True),
    ("stranger", "vllm", PORT, True),  # of its namespace
    ("client", "vllm", PORT, True),
    ("prometheus", "vllm", PORT, True),
    ("far", "vllm", PORT, False),
    ("client", "vllm", LAUNCHER_PORT, False),
    ("vllm", "stranger", PORT, False),
    (NODE, "vllm", LAUNCHER_PORT, True),  # the kubelet's probes
    ("stranger", "client", PORT, True),  # who has no policy
    ("operator", "fetch", PROGRESS_PORT, True),
    ("stranger", "fetch", PROGRESS_PORT, False),
    ("prometheus", "fetch", PROGRESS_PORT, False),
    *[("operator", job, PROGRESS_PORT, False) for job in ("publish", "index", "evaluate")],
    *[("stranger", job, ANY_PORT, False) for job in ("fetch", "publish", "index", "evaluate")],
    *[(job, "stranger", ANY_PORT, True) for job in ("fetch", "publish")],  # whatever a hub's address is
    *[(job, "stranger", ANY_PORT, False) for job in ("index", "evaluate")],
    ("index", "embedder", PORT, True),
    ("index", "vllm", PORT, False),
    ("evaluate", "vllm", PORT, True),
    ("evaluate", "embedder", PORT, True),
    ("server", "vllm", PORT, True),
    ("client", "server", APP_PORT, True),
    ("far", "server", APP_PORT, False),
    ("client", "evaluate", APP_PORT, False),
]


def of_team(name: str) -> dict[str, str]:
    return {"name": name, "namespace": "team"}


@pytest.mark.release
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ipset") is None, reason="needs root, and ipset for kube-router")
def test_strangers_are_kept_out_and_peers_are_not() -> None:
    serving = common_metadata(CHAT, {"apiVersion": "v1", "kind": "Namespace", "name": "team", "uid": "1"})
    del serving["ownerReferences"]
    given = {
        "ports": sorted({port for _, _, port, _ in QUESTIONS}),
        "pods": PODS,
        "policies": [
            gang_policy(of_team("gang"), NETWORK),
            network_policy(CHAT, LLMServingSpec.model_validate(CHAT["spec"]), serving, NETWORK),
            job_policy(of_team("fetch"), NETWORK, [tcp(PROGRESS_PORT, [NETWORK.operator])], [ANYWHERE]),
            job_policy(of_team("publish"), NETWORK, egress=[ANYWHERE]),
            server_policy(HELP, APP_SPEC, of_team("server"), NETWORK),
            *index_policy(of_team("index"), APP_SPEC.knowledge[0], NETWORK),
            *evaluation_policy(of_team("evaluate"), APP_SPEC, NETWORK),
        ],
        "questions": QUESTIONS,
    }
    build.ensure("policy-engine")
    alone = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    done = subprocess.run(
        [*alone, sys.executable, "-m", "tests.api.policed", policy_engine.KUBE_ROUTER.path],
        input=json.dumps(given), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert all(told["before"]), "without an engine all is open"
    wrong = [question for question, reached in zip(QUESTIONS, told["answers"], strict=True) if reached != question[-1]]
    assert not wrong, told["log"]
