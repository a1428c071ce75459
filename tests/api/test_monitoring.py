"""The chart's monitors and rules by the Prometheus operator's own definitions, and by itself."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.test_chart import CHART, MONITORED
from tests.api.test_helm import Helm, helm, plane
from tests.cluster import build
from tests.cluster.control_plane import free_ports
from tests.cluster.processes import wait
from tests.cluster.prometheus_operator import PROMETHEUS_OPERATOR, definitions
from tests.monitoring.conftest import prometheus
from tests.monitoring.scraping import scrape_config

__all__ = ["helm", "plane", "prometheus"]

Manifest = dict[str, Any]
GROUP = "monitoring.coreos.com/v1"
NAMESPACE = "monitored"


@pytest.fixture
def defined(helm: Helm) -> Iterator[Helm]:
    """A cluster that has the definitions, and before it had them."""
    refused = helm.refusal("install", "early", NAMESPACE, *MONITORED)
    assert "monitoring.enabled: the cluster has no monitoring.coreos.com/v1" in refused
    assert not helm.exists("deployments", "-n", NAMESPACE), "nothing is installed by halves"
    files = sorted(definitions().glob("*.yaml"))
    helm.plane.kubectl("apply", "--server-side", *(word for file in files for word in ("-f", file)))
    helm.plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    yield helm
    helm.plane.kubectl("delete", *(word for file in files for word in ("-f", file)))


def made_of(helm: Helm) -> list[Manifest]:
    """What stands in the release's manifest of the Prometheus operator's kinds."""
    text = helm.does("get", "manifest", "llm-operator", "--namespace", NAMESPACE)
    return [one for one in yaml.safe_load_all(text) if one and one["apiVersion"] == GROUP]


def holds(stored: Any, wanted: Any) -> bool:
    """Whether an object has all that was written; the definitions add defaults."""
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(holds(stored.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(holds, stored, wanted))
    return bool(stored == wanted)


def test_an_api_server_keeps_all_that_the_chart_says(defined: Helm) -> None:
    """A field that the definitions don't know would be left out in silence, and nothing be scraped."""
    defined.install("llm-operator", NAMESPACE, *MONITORED, "--set", "monitoring.dashboards=true")
    made = made_of(defined)
    assert sorted(one["kind"] for one in made) == [*["PodMonitor"] * 3, "PrometheusRule", "ServiceMonitor"]
    for one in made:
        stored = defined.get(one["kind"], one["metadata"]["name"], "-n", NAMESPACE)
        assert holds(stored["spec"], one["spec"]), stored["spec"]
        if one["kind"].endswith("Monitor"):
            assert relabelled(stored) == relabelled(one), "tests/e2e scrapes by what is stored"
    defined.does("uninstall", "llm-operator", "--namespace", NAMESPACE)
    assert not defined.exists("podmonitors,servicemonitors,prometheusrules", "-n", NAMESPACE)


def relabelled(monitor: Manifest) -> list[str]:
    """An API server keeps the keys of a selector in an order of its own."""
    return sorted(json.dumps(one) for one in scrape_config(monitor, Path("targets.json"))["relabel_configs"])


@contextmanager
def prometheus_operator(helm: Helm, log: Path) -> Iterator[None]:
    command = [str(PROMETHEUS_OPERATOR.path), f"--web.listen-address=127.0.0.1:{free_ports(1)}"]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env={**os.environ, "KUBECONFIG": str(helm.plane.kubeconfig)}, stdout=out, stderr=out
        )
    try:
        yield
        assert process.poll() is None, log.read_text()[-3000:]
    finally:
        process.terminate()
        process.wait()


PROMETHEUS = "k8s"
ASKS: Manifest = {
    "apiVersion": GROUP,
    "kind": "Prometheus",
    "metadata": {"name": PROMETHEUS, "namespace": NAMESPACE},
    "spec": {
        **{f"{kind}Selector": {"matchLabels": {"release": "prometheus"}}
           for kind in ("podMonitor", "serviceMonitor", "rule")},
    },
}  # fmt: skip


@pytest.mark.release
def test_the_prometheus_operator_makes_a_configuration_of_them(defined: Helm, prometheus: Path, tmp_path: Path) -> None:
    """Its labels are those that dashboards and alerts go by, and those that tests/monitoring/scraping.py makes."""
    build.ensure("prometheus-operator")
    defined.install("llm-operator", NAMESPACE, *MONITORED)
    with prometheus_operator(defined, tmp_path / "log"):
        file = tmp_path / "prometheus.yaml"
        file.write_text(yaml.safe_dump(ASKS))
        defined.plane.kubectl("apply", "-f", file)
        wait("its configuration", lambda: bool(configuration(defined).get("scrape_configs")), 120)
        found = configuration(defined)
        wait("its rules", lambda: bool(rule_names(defined)), 60)
    # Debian's Prometheus is built without discovery by Kubernetes; all else of it is checked.
    jobs = {job["job_name"].split("/")[2]: job for job in found["scrape_configs"]}
    assert all(job.pop("kubernetes_sd_configs") for job in jobs.values())
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(found))
    checked = subprocess.run([prometheus / "promtool", "check", "config", "--syntax-only", config],
                             capture_output=True, text=True, check=False)  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    monitors = {one["metadata"]["name"]: one for one in made_of(defined) if one["kind"].endswith("Monitor")}
    assert set(jobs) == set(monitors)
    for name, monitor in monitors.items():
        ours = labels_of(scrape_config(monitor, tmp_path / "targets.json"))
        theirs = labels_of(jobs[name])
        assert ours.items() <= theirs.items(), name
    rules = yaml.safe_load((CHART / "alerts.yaml").read_text())
    assert rule_names(defined) == {rule["alert"] for group in rules["groups"] for rule in group["rules"]}


def configuration(helm: Helm) -> Manifest:
    secret = f"prometheus-{PROMETHEUS}"
    if not helm.exists("secret", secret, "-n", NAMESPACE):
        return {}
    text = helm.get("secret", secret, "-n", NAMESPACE)["data"].get("prometheus.yaml.gz", "")
    return yaml.safe_load(gzip.decompress(base64.b64decode(text))) if text else {}


def rule_names(helm: Helm) -> set[str]:
    maps = helm.get("configmap", "-n", NAMESPACE, "-l", f"prometheus-name={PROMETHEUS}")["items"]
    files = [yaml.safe_load(text) for one in maps for text in (one.get("data") or {}).values()]
    return {rule["alert"] for file in files for group in file["groups"] for rule in group["rules"]}


def labels_of(job: Manifest) -> dict[str, list[str]]:
    """Each label of a target, and what it is made of."""
    made = [one for one in job["relabel_configs"] if one.get("source_labels")]
    return {one["target_label"]: one["source_labels"] for one in made if one.get("target_label")}
