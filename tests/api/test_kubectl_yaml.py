"""The same values that kubectl reads from a file."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from llm_operator.kubectl_yaml import UnreadableError, documents
from tests.cluster.control_plane import ControlPlane

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n"
JSON = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"},"v":1e3}\n'
SCALARS = """
y Y yes Yes YES yEs n N no No NO on On ON off Off OFF true True TRUE tRUE false False FALSE null Null NULL ~
0 -0 +0 00 08 09.5 5 +5 -5 010 -010 +010 0777 0o10 0O10 0o8 0b11 -0b11 0B1 0b2 0x10 0X1F -0x10 0x 0x_ff 1_000 1_ 1__0 _1
1e3 20e9 1E3 1e+3 1e-3 .5 5. 0.5 -.5 +.5 .5e3 0. .0 . .e3 1e 1e5.5 ..5 1.2.3 1.0 2.50 1_000.5 -0.0 1e20 1e21 1.5e300
1e400 9223372036854775807 9223372036854775808 -9223372036854775808 18446744073709551616 0x8000000000000000
1:30 1:30:00 2020-01-01 2020-01-01T00:00:00Z 64Gi 500m inf nan Inf NaN infinity = a-b 'yes' "1e3" 'null'
!!str 1, !!str yes, !!int "1", !!float "1", !!bool yes, !custom 20e9
""".replace(",", "\n").strip()
DOCUMENTS = {
    "mapping": "v: {1: a, 1.5: b, yes: c, 1e3: d, 0x10: e, 1e30: f, 2020-01-01: g, y: h, 'z': i}",
    "two equal keys": "v: {a: 1, a: 2}",
    "merged": "x: &x {a: 2, b: 3}\nv: {<<: *x, a: 1}\nw: {a: 1, <<: *x}\nu: {<<: [{a: 1, c: 1}, {a: 2, b: 3}]}",
    "quoted merge": 'v: {"<<": {a: 1}}',
    "aliases": "v: [&x [1, 2], *x, {a: *x}]",
    "blocks": "v: |\n  a\n  b\nw: >-\n  a\n  b\n",
    "tabs": "v: {a: 1,\n\tb: 2}",
    "set": "v: !!set {a, b}",
    "nothing": "v:\nw: ''\n",
    "end": "v: 1\n...\nnonsense: [\n",
}
STREAMS = {
    "documents": f"# first\n---\n{HEAD}v: 1\n--- # second\n{HEAD}v: 2\n---\n---\n",
    "JSON": JSON * 2,
    "JSON before YAML": f"{JSON}---\n{HEAD}",
    "a mapping in braces": "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default}, v: yes}",
}
UNREADABLE = (
    ".inf", "-.inf", ".nan", "{~: a}", "{[a]: b}", "&a [*a]", "*nowhere", "{<<: 5}", '"\\ud800"', "[", "@", "!!int abc",
    "!!bool maybe", "!!null x", "\n\ta: 1",
)  # fmt: skip


def kubectl(api_server: ControlPlane, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [api_server.binaries / "kubectl", "--kubeconfig", api_server.kubeconfig, "create", "--dry-run=client",
         "--validate=false", "-o", "json", "-f", "-"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip


def objects(text: str) -> list[Any]:
    """Of JSON, one after another."""
    found, at = [], 0
    while text[at:].strip():
        value, end = json.JSONDecoder().raw_decode(text[at:].lstrip())
        at += len(text[at:]) - len(text[at:].lstrip()) + end
        found.append(value)
    return found


def as_go(value: object) -> object:
    """An integer beyond 64 bits is a float; True is not 1."""
    whole = isinstance(value, int) and -(1 << 63) <= value < 1 << 63
    return float(value) if isinstance(value, int) and not whole else repr(value) if value in (0, 1) else value


def test_scalars(api_server: ControlPlane) -> None:
    scalars = [scalar for line in SCALARS.split("\n") for scalar in ([line] if "!" in line else line.split(" "))]
    text = f"{HEAD}v:\n" + "".join(f"- {scalar.strip()}\n" for scalar in scalars)
    answer = kubectl(api_server, text)
    assert answer.returncode == 0, answer.stderr
    (document,) = documents(text)
    for scalar, ours, theirs in zip(scalars, document.value["v"], json.loads(answer.stdout)["v"], strict=True):
        assert as_go(ours) == as_go(theirs), scalar


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(api_server: ControlPlane, name: str) -> None:
    answer = kubectl(api_server, HEAD + DOCUMENTS[name])
    assert [document.value for document in documents(HEAD + DOCUMENTS[name])] == objects(answer.stdout), answer.stderr


@pytest.mark.parametrize("name", STREAMS)
def test_streams(api_server: ControlPlane, name: str) -> None:
    answer = kubectl(api_server, STREAMS[name])
    assert [document.value for document in documents(STREAMS[name])] == objects(answer.stdout), answer.stderr


@pytest.mark.parametrize("value", UNREADABLE)
def test_what_kubectl_can_not_read(api_server: ControlPlane, value: str) -> None:
    assert kubectl(api_server, f"{HEAD}v: {value}\n").returncode != 0
    with pytest.raises(UnreadableError, match=r"^line [4-6]: "):
        list(documents(f"{HEAD}v: {value}\n"))
