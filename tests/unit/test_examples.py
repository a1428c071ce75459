"""Every file in examples/ is right, and shows one thing; what it reads is what the demo makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_operator.api.families import FAMILIES
from llm_operator.api.validation import load_app, load_serving, load_training
from llm_operator.plan import main
from llm_trainer.config import KINDS, kind_of

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
LOAD = {"LLMTraining": load_training, "LLMServing": load_serving, "LLMApp": load_app}
MADE_BY_THE_DEMO = {
    *(f"{domain}-{language}.jsonl" for domain in ("manual", "office") for language in ("en", "ja")),
    *(f"questions-{part}.jsonl" for part in ("train", "train-ja", "heldout")),
    *(f"preferences-{part}.jsonl" for part in ("train", "heldout")),
    "labels-train.jsonl",
    "prompts-train.jsonl",
    "facts-train.jsonl",
    "facts-preferences.jsonl",
    "towns",
    "town-questions.jsonl",
}


def manifests(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


def uris(value: Any) -> set[str]:
    """Every pvc:// in a manifest."""
    if isinstance(value, dict | list):
        return set().union(*(uris(part) for part in (value.values() if isinstance(value, dict) else value)))
    return {value} if isinstance(value, str) and value.startswith("pvc://") else set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_it_can_be_applied_as_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = found = manifests(file)
    assert first["metadata"] == {"name": file.stem}
    named = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(named) == len(set(named))
    for manifest in found:
        assert manifest["apiVersion"] == "llm-operator.io/v1alpha1"
        LOAD[manifest["kind"]](manifest["spec"])
        of_corpus = {uri.removeprefix("pvc://corpus/") for uri in uris(manifest) if uri.startswith("pvc://corpus/")}
        assert of_corpus <= MADE_BY_THE_DEMO
    assert main([str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{first['kind']} {file.stem}: ")


def test_each_kind_of_stage_has_one() -> None:
    kinds = set()
    for file in sorted((EXAMPLES / "stages").iterdir()):
        [manifest] = manifests(file)
        [stage] = load_training(manifest["spec"]).stages
        kinds.add(kind_of(stage))
    assert kinds == set(KINDS)


def test_each_family_has_one() -> None:
    files = sorted((EXAMPLES / "families").iterdir())
    families = [manifests(file)[0]["spec"]["model"]["architecture"]["family"] for file in files]
    assert sorted(families) == sorted(FAMILIES)
    assert [file.stem for file in files] == [family.replace("_", "-") for family in families]
