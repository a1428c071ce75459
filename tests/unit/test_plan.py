"""`python -m llm_operator plan FILE`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_operator.plan import main
from tests.app_specs import EVERYTHING, PLAIN
from tests.specs import MIXED, REMOVE, SERVING, TRAINING, Spec, adapters, changed

Manifest = dict[str, Any]

EXAMPLE = Path(__file__).parents[2] / "examples" / "bilingual-chat.yaml"


def manifest(kind: str, name: str, spec: Spec) -> Manifest:
    return {"apiVersion": "llm-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


GOOD = manifest("LLMTraining", "good", TRAINING)


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EXAMPLE)]) == 0
    said = capsys.readouterr().out
    for line in (
        "llama from scratch, 6.52 M parameters",
        "32 = 16 × 2 processes × 1 accumulated, of up to 256 tokens",
        "2.46 M in 300 steps of 8,192",
        "chat       sft from base",
        "87.1Mi per process for weights, gradients and optimizer state",
        "ZeRO 1: optimizer state in 2 shards",
        "adamw at 0.003, betas 0.9 and 0.95, weight decay 0.1; 50 steps of warm-up, then wsd, of which 0.3 decays,",
        "adamw at 0.001, betas 0.9 and 0.999, weight decay 0;",
    ):
        assert line in said, said


LARGE = Path(__file__).parents[2] / "docs" / "howto" / "large.md"


@pytest.mark.parametrize("name", ["llama-8b", "llama-70b"])
def test_the_page_about_large_models_shows_what_plan_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """UPDATE_GOLDEN=1 writes it anew."""
    assert main([str(LARGE.parent / "large" / f"{name}.yaml")]) == 0
    said, page = capsys.readouterr().out, LARGE.read_text()
    command = f"$ python -m llm_operator plan large/{name}.yaml\n"
    before, shown = page.split(command)
    if os.environ.get("UPDATE_GOLDEN"):
        LARGE.write_text(f"{before}{command}{said}```{shown.split('```', 1)[1]}")
        return
    assert shown.partition("```")[0] == said
    for term in ("weights", "optimizer", "gradients", "activations", "logits", "communication"):
        assert f"{term} " in said, said


def test_a_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = {
        "weights": [{"source": "books", "weight": 3}, {"weight": 1}],
        "maxEpochs": [{"source": "books", "epochs": 2}, {"epochs": 0.5}],
        "schedule": [{"fromShare": 0.5, "temperature": 0.3}, {"fromShare": 0.9, "weights": [{"domain": "book"}]}],
    }
    web = [{"name": f"web-{n}", "uri": f"pvc://c/{n}/*.jsonl", "domain": "web"} for n in range(2)]
    spec = changed(TRAINING, **MIXED, stages__0__pretrain__mixture=mixture)
    file = tmp_path / "mixed.yaml"
    file.write_text(
        json.dumps(manifest("LLMTraining", "mixed", changed(spec, data__sources__2=web[0], data__sources__3=web[1])))
    )
    assert main([str(file)]) == 0
    said = capsys.readouterr().out
    for line in (
        "    mixture  75 % books; 25 % web-ja, web-0, web-1 by size\n",
        "             from 0.5 on (51.2 K tokens) 3 kinds of domain and language by tokens ** 0.3\n",
        "             from 0.9 on (92.2 K tokens) 100 % books; nothing of 3 sources\n",
        "             at most 2 epochs of source 'books'\n",
        "             at most 0.5 epochs of all sources\n",
    ):
        assert line in said, said


def test_a_run_folder_that_is_taken_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "again.yaml"
    file.write_text(
        json.dumps(manifest("LLMTraining", "again", changed(TRAINING, resumeFrom={"uri": "pvc://models/a"})))
    )
    assert main([str(file)]) == 0
    assert "resumes    from pvc://models/a" in capsys.readouterr().out


def test_a_rollout_is_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    """PPO's steps are rollouts, not updates; GRPO's prompts have several answers each."""
    assert main([str(EXAMPLE.parent / "whole-chain.yaml"), str(EXAMPLE.parent / "stages" / "grpo.yaml")]) == 0
    said = capsys.readouterr().out
    assert "rows of pvc://corpus/prompts-train.jsonl × 0.25 / 64" in said, said
    assert "rows of pvc://corpus/prompts-train.jsonl × 0.05 / 8" in said, said


def test_a_file_that_can_not_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.yaml"
    spec = changed(TRAINING, stages__0__globalBatchSize=9)
    file.write_text(yaml.safe_dump(manifest("LLMTraining", "wrong", spec)))
    assert main([str(file)]) == 1
    assert "spec.stages[0].globalBatchSize: 9 is not divisible by 2" in capsys.readouterr().out


def test_a_file_without_a_training(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n---\n")
    assert main([str(tmp_path / "empty.yaml")]) == 2


# --- what is read --------------------------------------------------------------------------------------------------


def test_several_files_a_folder_and_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a.yml").write_text(yaml.safe_dump(manifest("LLMTraining", "from-yml", TRAINING)))
    (folder / "b.json").write_text(json.dumps(manifest("LLMServing", "from-json", SERVING)))
    (folder / "c.txt").write_text("[")
    file = tmp_path / "some"
    documents = [None, manifest("LLMTraining", "from-file", TRAINING), {"kind": "ConfigMap", "apiVersion": "v1"}]
    file.write_text(yaml.safe_dump_all(documents))
    text = json.dumps(manifest("LLMTraining", "from-stdin", TRAINING)).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main([str(folder), str(file), "-"]) == 0
    said = capsys.readouterr().out
    assert "skipped: 1 ConfigMap\n" in said
    for name in ("LLMTraining from-yml", "LLMServing from-json", "LLMTraining from-file", "LLMTraining from-stdin"):
        assert f"{name}: " in said, said


@pytest.mark.parametrize("kind", ["List", "LLMTrainingList"])
def test_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    item = GOOD if kind == "List" else {key: GOOD[key] for key in ("metadata", "spec")}
    version = "v1" if kind == "List" else GOOD["apiVersion"]
    file = tmp_path / "list.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": version, "kind": kind, "items": [item, item]}))
    assert main([str(file)]) == 0
    assert capsys.readouterr().out.count("LLMTraining good: ") == 2


def test_numbers_are_those_of_kubectl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = changed(TRAINING, stages__0={"name": "base", "pretrain": {"sequenceLength": 128}}, suspend=None)
    text = yaml.safe_dump({**GOOD, "spec": spec}).replace(
        "sequenceLength: 128", "sequenceLength: 128\n      tokens: 20e9"
    )
    (tmp_path / "file").write_text(text.replace("suspend: null", "suspend: no"))
    assert main([str(tmp_path / "file")]) == 0
    assert "20 G in" in capsys.readouterr().out


def test_a_name_that_is_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text(yaml.safe_dump({**GOOD, "metadata": {"generateName": "chat-"}}))
    assert main([str(tmp_path / "file")]) == 0
    assert "LLMTraining chat-: " in capsys.readouterr().out


def test_a_serving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = adapters({"name": "law", "uri": "pvc://models/law", "rank": 64})
    spec = changed(spec, resources={"limits": {"amd.com/gpu": "2e0"}}, replicas=3, maxModelLength=4096, image="vllm:2")
    (tmp_path / "file").write_text(yaml.safe_dump(manifest("LLMServing", "chat", spec)))
    assert main([str(tmp_path / "file")]) == 0
    said = capsys.readouterr().out
    for line in (
        "LLMServing chat: answers as chat",
        "stage that yields the last model of LLMTraining bilingual",
        "adapter    law, pvc://models/law",
        "pods       3, each with 2 amd.com/gpu",
        "image      vllm:2",
        "--max-model-len=4096 --tensor-parallel-size=2",
        "--max-lora-rank=64",
    ):
        assert line in said, said


def test_an_app(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text(yaml.safe_dump(manifest("LLMApp", "help", EVERYTHING)))
    assert main([str(tmp_path / "file")]) == 0
    said = capsys.readouterr().out
    for line in (
        "LLMApp help: answers as help",
        "LLMServing chat, its adapter acme/legal-v1.2, at most 256 tokens an answer",
        "manual: 1 inline document, ConfigMap faq, pvc://corpus/manual; 8 chunks a question at most",
        "prompt     1 example, about",
        "evaluation by ",
        "pods       2",
    ):
        assert line in said, said
    pages = {"name": "pages", "https": {"urls": ["https://example.com/a", "https://example.com/b"]}}
    agents = [{"name": "finder", "tools": ["look_up"], "steps": 2}, {"name": "writer"}]
    looks = {"tools": [{"name": "look_up", "description": "Finds.", "knowledge": {}}], "agents": agents,
             "workflow": {"sequential": {"agents": ["finder", "writer"]}}}  # fmt: skip
    several = {**PLAIN, **looks, "storage": EVERYTHING["storage"], "knowledge": [{"name": "web", "sources": [pages]}]}
    (tmp_path / "file").write_text(yaml.safe_dump(manifest("LLMApp", "help", several)))
    assert main([str(tmp_path / "file")]) == 0
    said = capsys.readouterr().out
    for line in (
        "web: 2 URLs; looked up by tools alone",
        "agent      finder: 2 steps at most, with look_up",
        "agent      writer: without tools",
        "workflow   sequential: finder, writer",
    ):
        assert line in said, said
    (tmp_path / "file").write_text(yaml.safe_dump(manifest("LLMApp", "help", changed(EVERYTHING, storage=REMOVE))))
    assert main([str(tmp_path / "file")]) == 1
    assert "spec.storage: is required with spec.knowledge" in capsys.readouterr().out


def test_gpus_are_those_of_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = changed(SERVING, resources={"limits": {"gpu.example.com/big": 2}})
    (tmp_path / "file").write_text(yaml.safe_dump(manifest("LLMServing", "chat", spec)))
    assert main([str(tmp_path / "file")]) == 1
    assert "setting gpuResources" in capsys.readouterr().out
    monkeypatch.setenv("GPU_RESOURCES", "gpu.example.com/*")
    assert main([str(tmp_path / "file")]) == 0
    monkeypatch.setenv("GPU_RESOURCES", "gpu")
    assert main([str(tmp_path / "file")]) == 2
    assert "GPU_RESOURCES" in capsys.readouterr().err


# --- what is wrong -------------------------------------------------------------------------------------------------


LAUGHS = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1\nb: 2\n", "line 2: "),
        (b"v: 1\n---\nkind: [\n", "line 4: "),
        (b"5\n", "line 1: is a number, and a manifest is an object"),
        (b"---\n---\n- a\n", "line 3: is a list"),
        (b"a: b\n", "line 1: has no kind"),
        (b"kind: [a]\n", "line 1: kind: is a list"),
        (b"kind: List\nitems: 5\n", "items: is a number"),
        (b"kind: List\nitems: [5]\n", "items[0]: is no object with a kind"),
        (b"kind: caf\xe9\n", "line 1: is no UTF-8: byte 0xe9"),
        (b"\x00\x01", "line 1: "),
        (b"a: " + b"[" * 100_000, "is nested more than 500 deep"),
        (b'{"a": ' * 100_000, "is nested"),
        (b"a: " + b" " * (17 << 20), "is larger than 16 MiB"),
        (b"a: *b\n", "line 1: there is no anchor 'b'"),
        (b"a: &a [*a]\n", "line 1: anchor 'a' contains itself"),
        (LAUGHS.encode(), "values, with those that aliases repeat"),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_can_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, says: str) -> None:
    """And what can be read is told all the same."""
    (tmp_path / "broken").write_bytes(content)
    (tmp_path / "good").write_text(yaml.safe_dump(GOOD))
    assert main([str(tmp_path / "broken"), str(tmp_path / "good")]) == 2
    said = capsys.readouterr()
    assert f"{tmp_path / 'broken'}: " in said.err
    assert says in said.err, said.err
    assert "LLMTraining good: " in said.out


def test_files_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere: No such file" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "has no file that ends with .json, .yaml, .yml" in capsys.readouterr().err
    assert main([]) == 2


def test_two_equal_keys_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text(yaml.safe_dump(GOOD) + "kind: LLMTraining\n")
    assert main([str(tmp_path / "file")]) == 0
    assert "'kind' stands twice; kubectl takes the last" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"spec": None}, "spec: is required"),
        ({"spec": []}, "spec: "),
        ({"metadata": None}, "metadata: must be an object, not null"),
        ({"metadata": []}, "metadata: must be an object, not a list"),
        ({"metadata": {}}, "metadata.name: is required"),
        ({"metadata": {"name": 5}}, "metadata.name: must be a text, not 5"),
        ({"apiVersion": "llm-operator.io/v1"}, "apiVersion: must be llm-operator.io/v1alpha1"),
        ({"apiVersion": 5}, "apiVersion: must be llm-operator.io/v1alpha1"),
        ({"sepc": {}}, "sepc: there is no such field"),
    ],
    ids=lambda value: str(value),
)
def test_what_is_wrong_around_the_spec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Manifest, says: str
) -> None:
    (tmp_path / "file").write_text(json.dumps({**GOOD, **change}))
    assert main([str(tmp_path / "file")]) == 1
    assert says in capsys.readouterr().out


def test_who_reads_may_stop_early() -> None:
    """As `| head -1` does."""
    command = [sys.executable, "-m", "llm_operator", "plan", *map(str, sorted(EXAMPLE.parent.rglob("*.yaml")) * 20)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as planned:
        assert planned.stdout
        assert planned.stderr
        planned.stdout.close()
        assert "Traceback" not in planned.stderr.read()
