"""A real Prometheus on loopback that scrapes a cluster as the chart's monitors say, without the Prometheus operator.

Debian's Prometheus knows no Kubernetes: it reads targets of a file, which is written here from a watch of the pods,
with the labels that its own discovery would give them.
"""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any

from kubectl_llm.kubectl import Kubectl, documents, running
from tests.cluster.control_plane import free_ports
from tests.cluster.processes import wait

Manifest = dict[str, Any]
SECONDS = 2  # between two looks: the tests' stages are short


def meta(kind: str, name: str = "") -> str:
    """The label that Prometheus' discovery of pods gives."""
    return f"__meta_kubernetes_pod_{kind}" + (f"_{re.sub('[^A-Za-z0-9]', '_', name)}" if name else "")


def scrape_config(monitor: Manifest, targets_file: Path) -> Manifest:
    """What the Prometheus operator would make of a PodMonitor, or of the ServiceMonitor of pods of the same labels."""
    spec = monitor["spec"]
    (endpoint,) = spec.get("podMetricsEndpoints") or spec["endpoints"]
    selector = spec["selector"]
    keep = [
        {"action": "keep", "source_labels": [meta("label", name)], "regex": value}
        for name, value in (selector.get("matchLabels") or {}).items()
    ]
    keep += [
        {"action": "keep", "source_labels": [meta("labelpresent", one["key"])], "regex": "true"}
        for one in selector.get("matchExpressions") or []
    ]
    keep.append({"action": "keep", "source_labels": [meta("container_port_name")], "regex": endpoint["port"]})
    # a pod that has ended is no target, as it is none of the Prometheus operator's
    keep.append({"action": "drop", "source_labels": [meta("phase")], "regex": "(Failed|Succeeded)"})
    targets = [
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [meta("name")], "target_label": "pod"},
        *(
            {"source_labels": one["sourceLabels"], "target_label": one["targetLabel"]}
            for one in endpoint.get("relabelings") or []
        ),
    ]
    return {
        "job_name": f"{monitor['kind']}-{monitor['metadata']['name']}",
        "file_sd_configs": [{"files": [str(targets_file)]}],
        "relabel_configs": [*keep, *targets],
    }


def pod_targets(pod: Manifest) -> Iterator[Manifest]:
    """A port of a pod's containers each."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    known = {
        "__meta_kubernetes_namespace": metadata["namespace"],
        meta("name"): metadata["name"],
        meta("phase"): status.get("phase", ""),
    }
    for name, value in (metadata.get("labels") or {}).items():
        known |= {meta("label", name): value, meta("labelpresent", name): "true"}
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or [] if status.get("podIP") else []:
            labels = {**known, meta("container_port_name"): port.get("name", "")}
            yield {"targets": [f"{status['podIP']}:{port['containerPort']}"], "labels": labels}


def discover(events: IO[str] | None, file: Path) -> None:
    """Until the watch of the pods ends."""
    pods: dict[str, Manifest] = {}
    with suppress(ValueError):  # of a stream that was closed at the end
        for event in documents(events):
            pod = event["object"]
            pods[pod["metadata"]["uid"]] = pod
            if event["type"] == "DELETED":
                del pods[pod["metadata"]["uid"]]
            new = file.with_suffix(".new")
            new.write_text(json.dumps([target for each in pods.values() for target in pod_targets(each)]))
            new.replace(file)


@dataclass(frozen=True)
class Prometheus:
    port: int

    def ask(self, path: str, **query: object) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]

    def range(self, expr: str, start: float, end: float) -> list[Manifest]:
        """Every series that an expression gives in a time."""
        step = max(SECONDS, (end - start) / 1000)
        found: list[Manifest] = self.ask("query_range", query=expr, start=start, end=end, step=step)["result"]
        return found


@contextmanager
def scraping(
    binaries: Path, folder: Path, monitors: list[Manifest], alerts: Path, kubectl: Kubectl
) -> Iterator[Prometheus]:
    """What the monitors say, by a watch of the cluster's pods."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = folder / "targets.json"
    targets.write_text("[]")
    scraped = [scrape_config(monitor, targets) for monitor in monitors]
    watch = kubectl.command("get", "pods", "--all-namespaces", "-o", "json", "--watch", "--output-watch-events")
    with prometheus_server(binaries, folder, scraped, alerts) as found, running(watch) as pods:
        Thread(target=discover, args=(pods.stdout, targets), daemon=True).start()
        yield found


@contextmanager
def prometheus_server(binaries: Path, folder: Path, scraped: list[Manifest], alerts: Path) -> Iterator[Prometheus]:
    """Its data goes with the folder."""
    config = {
        "global": {"scrape_interval": f"{SECONDS}s", "scrape_timeout": f"{SECONDS}s", "evaluation_interval": "15s"},
        "rule_files": [str(alerts)],
        "scrape_configs": scraped,
    }
    file = folder / "prometheus.yaml"
    file.write_text(json.dumps(config))
    port = free_ports(1)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [binaries / "prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log,
        )  # fmt: skip
    found = Prometheus(port)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        try:
            return bool(found.ask("status/runtimeinfo"))
        except OSError:
            return False

    try:
        wait("Prometheus", answers)
        yield found
    finally:
        process.terminate()
        process.wait()
