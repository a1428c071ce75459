"""A server that speaks HTTPS, and one that tells a collector of its requests."""

from __future__ import annotations

from tests.app_specs import PLAIN
from tests.specs import changed
from tests.unit.apps.scenes import config, run_pods, scene, serving, settle
from tests.unit.world import NETWORK

SECRET = {"secretName": "help-tls", "items": [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]}


def test_https() -> None:
    world = scene(changed(PLAIN, tls={"secretName": "help-tls"}))
    settle(world, serving())
    run_pods(world)
    settle(world, serving())
    pod = world.objects["Deployment", "help-app"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert {"name": "tls", "secret": SECRET} in pod["volumes"]
    assert {"name": "tls", "mountPath": "/etc/llm-operator/tls", "readOnly": True} in container["volumeMounts"]
    probes = [container[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("startup", "readiness", "liveness")]
    assert probes == ["HTTPS"] * 3
    assert [one["port"] for one in world.objects["Service", "help-app"]["spec"]["ports"]] == [443]
    assert world.owner["status"]["url"] == "https://help-app.team.svc/v1"
    assert config(world)["tls"]
    world.owner["spec"] = PLAIN
    settle(world, serving())
    assert world.owner["status"]["url"] == "http://help-app.team.svc/v1"


def test_tracing_opens_the_way_to_the_collector() -> None:
    endpoint = "http://collector.observability.svc:4318"
    world = scene(changed(PLAIN, tracing={"endpoint": endpoint}))
    world.network = NETWORK
    settle(world, serving())
    assert config(world)["tracing"] == {"endpoint": endpoint, "sampleRatio": 1.0}
    assert "observability" in str(world.objects["NetworkPolicy", "help-app"]["spec"]["egress"])
