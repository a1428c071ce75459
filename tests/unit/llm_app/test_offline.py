"""``python -m llm_operator prompt``, on files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_app.config import CONFIG_FOLDER
from llm_operator import prompts
from tests.app_specs import AGENTS, APP, ORDERS, PLAIN
from tests.specs import Spec, changed


def manifest(name: str, spec: Spec) -> str:
    api = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMApp"}
    return json.dumps({**api, "metadata": {"name": name}, "spec": spec})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    maps = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "faq"}, "data": {"a.md": "The valve is red."}}
    made = tmp_path / "app.yaml"
    made.write_text(f"{manifest('help', APP)}\n---\n{json.dumps(maps)}\n")
    return made


def test_what_would_be_sent(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus/manual").mkdir(parents=True)
    (tmp_path / "corpus/manual/bolt.txt").write_text("A bolt has 5 mm. {{product}}")
    claim = f"corpus={tmp_path / 'corpus'}"
    assert prompts.main([str(file), "--ask", "bolt, valve, oil?", "--claim", claim]) == 0
    said = capsys.readouterr()
    assert not said.err
    for part in ("You help users of the pump.", "Yes [1].", "The valve is red.", "Oil it every", "bolt, valve, oil?"):
        assert part in said.out
    assert 'title="corpus/manual/bolt.txt"' in said.out
    assert "5 mm. {{product}}" in said.out, "a document is no template"
    assert CONFIG_FOLDER not in said.out


def test_what_is_not_here_is_told_and_left_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts.main([str(file), "--ask", "x"]) == 0
    assert "pvc://corpus/manual is not here; --claim corpus=FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "more", "code", "says"),
    [
        ("a: 1", [], 2, "there are: none"),
        (manifest("a", PLAIN) + "\n---\n" + manifest("b", PLAIN), [], 2, "there are: a, b"),
        (manifest("a", PLAIN), ["--name", "b"], 2, "there is no LLMApp b; there are a"),
        (manifest("a", PLAIN), ["--claim", "corpus"], 2, "write NAME=FOLDER"),
        (manifest("a", changed(PLAIN, prompt={"system": "{{x}}"})), [], 1, "{{x}} is no variable"),
        (manifest("a", PLAIN), ["--context", "515"], 1, "3 are left beside the answer"),
    ],
)
def test_what_can_not_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, more: list[str], code: int, says: str
) -> None:
    (tmp_path / "file").write_text(text)
    assert prompts.main([str(tmp_path / "file"), "--ask", "x", *more]) == code
    assert says in capsys.readouterr().err


def test_what_each_agent_would_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = {"url": "https://orders.example.com"}
    spec = changed(
        AGENTS,
        prompt={"system": "You are {{product}}.", "variables": {"product": "a shop"}},
        tools__3__openapi={**at, "configMap": {"name": "documents", "key": "orders.yaml"}},
        tools__0={"name": "weather", "openapi": {**at, "uri": "pvc://corpus/weather.yaml"}},
    )
    maps = {"kind": "ConfigMap", "metadata": {"name": "documents"}, "data": {"orders.yaml": ORDERS}}
    file = tmp_path / "app.yaml"
    file.write_text(f"{manifest('help', spec)}\n---\n{json.dumps({'apiVersion': 'v1', **maps})}\n")
    assert prompts.main([str(file), "--ask", "Where is order 7?"]) == 0
    said = capsys.readouterr()
    lead, worker = said.out.split("=== agent ")[1:]
    assert "2 agents (supervisor)" in said.out
    for part in ("You are a shop.", "Lead a shop.", "- manual:", "Where is order 7?", "Decide what to do next."):
        assert part in lead
    assert 'one line of JSON: {"tool":"manual","arguments":{…}} to call a tool, or {"tool":"answer"} to answer' in lead
    assert '{"tool":"NAME","arguments":{…}} to call a tool' in worker, "of several none is preferred"
    assert "- orders_getOrder:" in worker
    assert "tool stock: what the MCP server offers is not asked here" in said.err
    assert "tool weather: its document (pvc://corpus/weather.yaml) is not here" in said.err
    (tmp_path / "weather.yaml").write_text(ORDERS.replace("getOrder", "getSky"))
    told = [str(file), "--ask", "x", "--claim", f"corpus={tmp_path}"]
    assert prompts.main(told) == 0
    assert "- weather_getSky:" in capsys.readouterr().out
    assert prompts.main([*told, "--context", "530"]) == 1
    assert "spec.agents[0] lead: spec.prompt.system, its instructions, 1 tools" in capsys.readouterr().err
    (tmp_path / "weather.yaml").write_text("swagger: '2.0'")
    assert prompts.main(told) == 1
    assert "it can't work: tool weather: its document swagger" in capsys.readouterr().err
