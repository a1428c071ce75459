"""What a serving's Deployment follows, and what it survives."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from tests.api.serving.conftest import CHILD, CLAIM, Lab
from tests.pod_cases import ALL_PODS, NAMED_BY_ALL_PODS
from tests.specs import TRAINING

MODEL = {"uri": "pvc://models/base"}
RESULT = {"uri": "pvc://models/run/chat", "digest": "sha256:one", "kind": "model", "step": 100}


def finished_training(lab: Lab) -> None:
    """Which the operator must not run."""
    kind = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMTraining", "metadata": {"name": "bilingual"}}
    lab.apply({**kind, "spec": {**TRAINING, "suspend": True}})
    lab.until(lambda: lab.get("llmtraining", "bilingual").get("status", {}).get("stages"))
    while not any(stage.get("result") for stage in lab.get("llmtraining", "bilingual")["status"]["stages"]):
        stages = lab.get("llmtraining", "bilingual")["status"]["stages"]
        stages[-1]["result"] = RESULT
        lab.patch("llmtraining", "bilingual", {"status": {"stages": stages}}, "--subresource=status")


def writes(lab: Lab) -> list[str]:
    """Of this lab's operator, in the API server's audit log."""
    events = [json.loads(line) for line in lab.plane.audit_log.read_text().splitlines() if line]
    user = f"operator-{lab.namespace}"
    return [
        f"{event['verb']} {event['objectRef'].get('resource')}"
        for event in events
        if event["user"]["username"] == user
        and event["verb"] in ("create", "patch", "update", "delete")
        and event["objectRef"].get("resource") != "leases"
    ]


def test_it_follows_its_spec_when_its_training_is_gone(lab: Lab) -> None:
    """The case scale-after-training-deleted."""
    finished_training(lab)
    lab.serve({"model": {"training": {"name": "bilingual"}}, "replicas": 2})
    lab.until_ready()
    lab.kubectl("delete", "llmtraining", "bilingual")
    lab.until(lambda: lab.condition("ModelAvailable").get("reason") == "TrainingNotFound")
    lab.kubectl("scale", "llms", "chat", "--replicas=0")
    lab.until(lambda: lab.get("deployment")["spec"]["replicas"] == 0)
    lab.until(lambda: not lab.pods())
    lab.patch("llmserving", "chat", {"spec": {"replicas": 3, "maxModelLength": 256}})
    lab.until_ready()
    assert len(lab.pods()) == 3
    assert "--max-model-len=256" in lab.args()
    assert lab.status()["model"] == {field: RESULT[field] for field in ("uri", "digest", "step")}


def test_a_spec_that_can_not_work_is_kept_from_what_serves(lab: Lab) -> None:
    """All that we have applied stays, with what the API server made of it, and the number of pods follows."""
    for named in NAMED_BY_ALL_PODS:
        lab.apply(named)
    lab.serve({"model": MODEL, "pods": ALL_PODS})
    lab.until_ready()
    before = lab.get("deployment")
    missing = {"persistentVolumeClaim": {"claimName": "missing"}}
    lab.patch("llmserving", "chat", {"spec": {"cache": missing, "strategy": {"type": "Recreate"}, "replicas": 2}})
    lab.until(lambda: lab.get("deployment")["spec"]["replicas"] == 2)
    lab.until(lambda: lab.condition("Progressing").get("reason") == "RolloutStuck")
    assert "PersistentVolumeClaim missing of spec.cache does not exist" in lab.condition("Progressing")["message"]
    lab.until(lambda: len(lab.pods()) == 2)
    lab.run_pods()
    lab.until(lambda: lab.status().get("updatedReplicas") == 2)
    after = lab.get("deployment")
    assert after["spec"] == {**before["spec"], "replicas": 2}
    assert fields_of(after) == fields_of(before), "and is still ours"
    count = len(writes(lab))
    lab.kubectl("annotate", "llms", "chat", "note=1")
    lab.kubectl("scale", "llms", "chat", "--replicas=1")
    lab.until(lambda: lab.get("deployment")["spec"]["replicas"] == 1)
    assert writes(lab)[count:].count("patch deployments") == 1
    lab.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "missing"}, "spec": CLAIM})
    lab.until(lambda: lab.get("deployment")["spec"]["strategy"] == {"type": "Recreate"})
    lab.until_ready()


def fields_of(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """Which fields the operator owns."""
    records = deployment["metadata"]["managedFields"]
    return [record["fieldsV1"] for record in records if record["manager"] == "llm-operator"]


def test_drift_is_mended_and_what_others_add_stays(lab: Lab) -> None:
    for named in NAMED_BY_ALL_PODS:
        lab.apply(named)
    lab.serve({"model": MODEL, "pods": ALL_PODS})
    lab.until_ready()
    before = len(writes(lab))
    lab.kubectl("annotate", "llms", "chat", "note=1")  # a pass
    lab.kubectl("label", "deployment", CHILD, "cost-center=42")
    lab.kubectl("rollout", "restart", f"deployment/{CHILD}")
    lab.until_ready()
    added = [write for write in writes(lab)[before:] if "llmservings" not in write and "events" not in write]
    assert not added, "what others add is no drift, and all fields of a pod are known as ours"
    lab.patch("networkpolicy", CHILD, {"spec": {"ingress": [{}]}})
    lab.kubectl("scale", "deployment", CHILD, "--replicas=5")
    lab.kubectl("set", "image", f"deployment/{CHILD}", "vllm=other:1")
    service = [
        {"op": "replace", "path": "/spec/ports/0/port", "value": 81},
        {"op": "add", "path": "/spec/selector/app", "value": "other"},
    ]  # at once: a Service with another port is made anew
    lab.kubectl("patch", "service", CHILD, "--type=json", "-p", json.dumps(service))
    lab.patch("poddisruptionbudget", CHILD, {"spec": {"maxUnavailable": 0}})
    lab.until(lambda: lab.get("deployment")["spec"]["replicas"] == 1)
    lab.until(lambda: [port["port"] for port in lab.get("service").get("spec", {}).get("ports", [])] == [80])
    lab.until(lambda: lab.get("poddisruptionbudget")["spec"]["maxUnavailable"] == 1)
    lab.until(lambda: "from" in lab.get("networkpolicy")["spec"]["ingress"][0])
    lab.until(lambda: lab.get("deployment")["spec"]["template"]["spec"]["containers"][0]["image"] == "vllm:1")
    deployment = lab.get("deployment")
    assert deployment["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"]
    assert deployment["metadata"]["labels"]["cost-center"] == "42"
    lab.until(lambda: "app" not in lab.get("service")["spec"]["selector"])
    lab.until(lambda: "spec.replicas (kubectl" in lab.told("DriftMended"))
    for kind in ("deployment", "service", "poddisruptionbudget", "networkpolicy"):
        lab.kubectl("delete", kind, CHILD)
        lab.until(partial(lab.get, kind))


def test_tls_comes_and_goes(lab: Lab) -> None:
    """The Service has one port at a time, and what somebody changes in it is set back."""
    lab.serve({"model": MODEL})
    lab.until_ready()
    assert lab.status()["url"] == f"http://{CHILD}.{lab.namespace}.svc/v1"
    lab.patch("llmserving", "chat", {"spec": {"tls": {"secretName": "chat-tls"}}})
    lab.until(lambda: [port["port"] for port in lab.get("service")["spec"]["ports"]] == [443])
    lab.until_ready()
    lab.until(lambda: lab.status()["url"] == f"https://{CHILD}.{lab.namespace}.svc/v1")
    assert "--enable-ssl-refresh" in lab.args()
    ports = [{"op": "replace", "path": "/spec/ports/0/port", "value": 81}]
    lab.kubectl("patch", "service", CHILD, "--type=json", "-p", json.dumps(ports))
    lab.until(lambda: [port["port"] for port in lab.get("service").get("spec", {}).get("ports", [])] == [443])
    lab.patch("llmserving", "chat", {"spec": {"tls": None}})
    lab.until(lambda: [port["name"] for port in lab.get("service")["spec"]["ports"]] == ["http"])
    lab.until(lambda: lab.status()["url"].startswith("http://"))


def test_an_old_pod_goes_first_where_no_node_holds_one_more(lab: Lab) -> None:
    """The case rollout-without-spare-gpu."""
    lab.serve({"model": MODEL, "resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "2", "memory": "8Gi"}}})
    lab.until_ready()
    [old] = lab.pods()
    lab.patch("llmserving", "chat", {"spec": {"maxModelLength": 256}})
    lab.until(lambda: len(lab.pods()) == 2)
    new = next(pod for pod in lab.pods() if pod["metadata"]["uid"] != old["metadata"]["uid"])
    lab.find_no_room(new)
    lab.until(lambda: "Insufficient nvidia.com/gpu" in lab.told("RolloutStuck"))
    lab.until(lambda: [pod["metadata"]["uid"] for pod in lab.pods()] == [new["metadata"]["uid"]])
    lab.until(lambda: lab.told("ReplacingPods"))
    lab.until_ready()
    lab.until(lambda: lab.get("deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 1)
    lab.patch("llmserving", "chat", {"spec": {"strategy": {"type": "Recreate"}}})
    lab.until(lambda: lab.get("deployment")["spec"]["strategy"] == {"type": "Recreate"})


def test_a_pod_that_loads_can_be_evicted_and_one_that_answers_is_protected(lab: Lab) -> None:
    """The case drain-while-loading, as kubectl drain asks for it."""
    lab.serve({"model": MODEL})
    lab.until(lab.pods)
    lab.run_pods(ready=False)
    [loading] = lab.pods()
    evict(lab, loading)
    lab.until(lambda: loading["metadata"]["uid"] not in [pod["metadata"]["uid"] for pod in lab.pods()])
    lab.kubectl("scale", "llms", "chat", "--replicas=2")
    lab.until_ready()
    lab.until(lambda: lab.get("poddisruptionbudget").get("status", {}).get("disruptionsAllowed") == 1)
    first, second = lab.pods()
    evict(lab, first)
    lab.until(lambda: lab.get("poddisruptionbudget")["status"]["disruptionsAllowed"] == 0)
    assert '"Success"' not in evict(lab, second, check=False)
    assert second["metadata"]["uid"] in [pod["metadata"]["uid"] for pod in lab.pods()]


def evict(lab: Lab, pod: dict[str, Any], *, check: bool = True) -> str:
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": lab.namespace}}
    file = lab.plane.state / f"{lab.namespace}-evict.json"
    file.write_text(json.dumps(body))
    path = f"/api/v1/namespaces/{lab.namespace}/pods/{name}/eviction"
    deadline = time.monotonic() + 30
    while True:  # the disruption controller must know the pod first
        said = lab.kubectl("create", "--raw", path, "-f", file, check=False)
        if '"Success"' in said or not check or time.monotonic() > deadline:
            assert not check or '"Success"' in said, said
            return said
        time.sleep(0.2)


def test_a_chat_template_follows_its_config_map(lab: Lab) -> None:
    """The case chat-template-from-configmap."""
    source = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "templates"}}
    lab.apply({**source, "data": {"plain.jinja": "{{ messages }}"}})
    lab.serve({"model": MODEL, "chatTemplate": {"configMap": {"name": "templates", "key": "plain.jinja"}}})
    lab.until_ready()
    assert "--chat-template=/etc/llm-operator/chat-template/plain.jinja" in lab.args()
    assert lab.get("service")["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    assert "--host=0.0.0.0" in lab.args()
    before = lab.get("deployment")["metadata"]["generation"]
    lab.apply({**source, "data": {"plain.jinja": "{{ messages | tojson }}"}})
    lab.until(lambda: lab.get("deployment")["metadata"]["generation"] > before)
    lab.until_ready()
    before = lab.get("deployment")["metadata"]["generation"]
    lab.kubectl("delete", "configmap", "templates")
    lab.until(lambda: lab.condition("Progressing").get("reason") == "RolloutStuck")
    assert "ConfigMap templates does not exist" in lab.condition("Progressing")["message"]
    assert lab.get("deployment")["metadata"]["generation"] == before, "the pods have it mounted"


def test_who_changes_a_field_again_and_again_is_not_fought(lab: Lab) -> None:
    """An autoscaler of the Deployment, and an admission policy that changes every write."""
    lab.serve({"model": MODEL})
    lab.until_ready()
    before = len(writes(lab))
    for replicas in range(2, 22):
        lab.kubectl("scale", "deployment", CHILD, f"--replicas={replicas}")
    lab.until(lambda: lab.get("deployment")["spec"]["replicas"] == 1)
    patches = writes(lab)[before:].count("patch deployments")
    assert 1 <= patches <= 4, "at most one in 10 s"
    for manifest in doubling(lab.namespace):
        lab.apply(manifest)
    try:
        lab.until(lambda: lab.kubectl("annotate", "deployment", CHILD, "--overwrite", f"at={time.time()}")
                  and lab.get("deployment")["spec"]["replicas"] == 2)  # fmt: skip
        before = len(writes(lab))
        lab.patch("llmserving", "chat", {"spec": {"maxModelLength": 256}})
        lab.until(lambda: "an admission webhook" in lab.condition("Progressing").get("message", ""))
        for note in range(20):
            lab.kubectl("annotate", "llms", "chat", "--overwrite", f"note={note}")
        assert writes(lab)[before:].count("patch deployments") <= 2
    finally:
        for manifest in doubling(lab.namespace):
            lab.kubectl("delete", manifest["kind"], manifest["metadata"]["name"])


def doubling(namespace: str) -> list[dict[str, Any]]:
    """A policy by which every Deployment of a namespace has two replicas."""
    api = {"apiVersion": "admissionregistration.k8s.io/v1"}
    name = {"name": f"two-{namespace}"}
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"],
    }
    expression = "Object{spec: Object.spec{replicas: 2}}"
    policy = {
        "matchConstraints": {"resourceRules": [rule]}, "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
    }  # fmt: skip
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": name["name"], "matchResources": here}
    return [
        {**api, "kind": "MutatingAdmissionPolicy", "metadata": name, "spec": policy},
        {**api, "kind": "MutatingAdmissionPolicyBinding", "metadata": name, "spec": binding},
    ]


def test_names_at_their_limits(lab: Lab) -> None:
    """Dots, a digit first, 63 characters; two that differ at the end or in a dot only."""
    long = "7b.instruct-v0.3.continued-pretraining.japanese-legal.run-0000"
    names = (f"{long}1", f"{long}2", "llama-3.1-8b", "llama-3-1-8b", "0")
    for name in names:
        kind = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMServing", "metadata": {"name": name}}
        lab.apply({**kind, "spec": {"model": MODEL}})
    for plural in ("services", "poddisruptionbudgets", "deployments"):
        lab.until(lambda plural=plural: served_by(lab, plural) == set(names))  # type: ignore[misc]


def served_by(lab: Lab, plural: str) -> set[str]:
    """Whose children of a kind there are, and that no two share one."""
    found = json.loads(lab.kubectl("get", plural, "-o", "json"))["items"]
    owners = [child["metadata"]["ownerReferences"][0]["name"] for child in found]
    assert len(owners) == len(set(owners))
    return set(owners)
