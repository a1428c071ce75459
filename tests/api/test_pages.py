"""A real API server takes what the pages show; helm and kubectl have the flags of the commands on them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY
from tests.page_manifests import OURS, Found, found
from tests.pages import Command, blocks, commands

FLAG = re.compile(r"--?[A-Za-z][\w-]*")
ALL = found()
KNOWN = {OURS, "v1"}
"""Of other projects' groups the server here has no definitions."""


def run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=text, capture_output=True, text=True, check=False)


def rendered(*words: str) -> subprocess.CompletedProcess[str]:
    """The chart with these values, as for a cluster that has the Prometheus operator."""
    cluster = ("--kube-version", "1.36.0", "--api-versions", "monitoring.coreos.com/v1")
    return run(str(binaries() / "helm"), "template", "x", str(REPOSITORY / "charts/llm-operator"), *cluster, *words)


def dry_run(api_server: ControlPlane, manifests: list[dict[str, object]]) -> str:
    """What kubectl says against them, each in a namespace that is there."""
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert isinstance(metadata, dict)
        metadata.pop("namespace", None)
    listed = {"apiVersion": "v1", "kind": "List", "items": manifests}
    words = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    done = run(str(binaries() / "kubectl"), "--kubeconfig", str(api_server.kubeconfig), *words, text=json.dumps(listed))
    return done.stderr if done.returncode else ""


def places(all_found: list[Found]) -> list[str]:
    return sorted({one.place.partition(":")[0] for one in all_found})


@pytest.mark.parametrize("page", places([one for one in ALL if one.manifest]))
def test_an_api_server_takes_the_manifests_of_a_page(api_server: ControlPlane, page: str) -> None:
    shown = [one.manifest for one in ALL if one.manifest and one.place.startswith(f"{page}:")]
    known = [manifest for manifest in shown if manifest["apiVersion"] in KNOWN]
    assert known
    assert not dry_run(api_server, known)


def test_the_tutorials_are_walked_as_far_as_no_pod_runs(api_server: ControlPlane, tmp_path: Path) -> None:
    """In their order, in the namespace that they make, which admits the restricted level alone."""
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(api_server.kubeconfig, kubeconfig)
    walked = [one for page in ("first-chat", "fine-tune") for one in commands() if one.place in typed_on(page)]
    steps = [one for one in walked if WALKED & set(one.words[1:4]) and one.words[:2] != ("kubectl", "llm")]
    last = [one for one in steps if one.words[1:3] == ("delete", "namespace")]
    assert len(last) == 1
    assert len(steps) >= 9
    for step in (*(one for one in steps if one not in last), *last):
        if "loader.yaml" in " ".join(step.words):  # its service account is made behind the namespace
            wait("the service account", lambda: "default" in run_in(kubeconfig, "-n", "llm-demo", "get", "sa").stdout)
        words = (*step.words[1:], "--wait=false") if step in last else step.words[1:]
        done = run_in(kubeconfig, *words)
        assert not done.returncode, f"{step.place}: {done.stderr}"
        assert "violate PodSecurity" not in done.stderr, step.place


WALKED = {"apply", "config", "get", "scale", "delete"}


def typed_on(page: str) -> set[str]:
    return {block.place for block in blocks("console") if block.place.startswith(f"docs/tutorial/{page}.md:")}


def run_in(kubeconfig: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(binaries() / "kubectl"), "--kubeconfig", str(kubeconfig), *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("one", [one for one in ALL if one.values], ids=lambda one: one.place)
def test_the_chart_takes_the_values_of_a_page(one: Found, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(one.values, allow_unicode=True).replace("sha256:…", f"sha256:{'0' * 64}"))
    done = rendered("-f", str(file))
    assert not done.returncode, done.stderr


@cache
def flags_of(program: str, *verbs: str) -> frozenset[str]:
    told = run(str(binaries() / program), *verbs, "--help").stdout
    everywhere = run(str(binaries() / program), "options").stdout if program == "kubectl" else ""
    assert told, f"{program} {' '.join(verbs)} has no help"
    return frozenset(FLAG.findall(told + everywhere))


VERBS = {"kubectl": {"create": 2, "config": 1, "rollout": 1}, "helm": {}}
"""Verbs that have verbs below them, and how many of these a command names at most."""


def unknown_flags(command: Command) -> list[str]:
    program, *words = command.words
    words = words[: words.index("--")] if "--" in words else words
    verbs = verbs_of(program, words)
    known = flags_of(program, *verbs)
    return [word for word in words if word.startswith("-") and len(word) > 1 and word.partition("=")[0] not in known]


def verbs_of(program: str, words: list[str]) -> list[str]:
    """Before them may stand flags, of which those of a docs page have their value in a word of its own."""
    plain = [word for at, word in enumerate(words) if not word.startswith("-") and (at == 0 or words[at - 1] != "-n")]
    below = VERBS[program].get(plain[0], 0) if plain else 0
    return plain[: 1 + below] if plain[:2] != ["create", "secret"] else plain[:3]


@pytest.mark.parametrize("program", ["kubectl", "helm"])
def test_flags_of_the_pages_are_there(program: str) -> None:
    asked = [one for one in commands() if one.words[0] == program and one.words[1:2] not in ((), ("llm",))]
    assert len(asked) > 5
    wrong = {f"{one.place}: {' '.join(one.words)}": flags for one in asked if (flags := unknown_flags(one))}
    assert not wrong


def test_an_unknown_flag_is_seen() -> None:
    assert unknown_flags(Command("here", ("kubectl", "apply", "--filename=x", "--no-such-flag"))) == ["--no-such-flag"]
    assert unknown_flags(Command("here", ("helm", "install", "x", "--no-such-flag"))) == ["--no-such-flag"]


def test_values_that_helm_is_given_are_there() -> None:
    """The chart's schema refuses a name that it doesn't have."""
    for one in commands():
        if one.words[:2] in (("helm", "install"), ("helm", "upgrade")):
            pairs = [word for at, word in enumerate(one.words) if one.words[at - 1] == "--set"]
            sets = [part for pair in pairs for part in ("--set", pair)]
            done = rendered(*sets)
            assert not done.returncode, f"{one.place}: {done.stderr}"
