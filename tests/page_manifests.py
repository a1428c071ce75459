"""What the YAML of the docs is: whole manifests, parts of a spec laid over one that is right, values of the chart."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from llm_operator.api.app import LLMAppSpec
from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.training import LLMTrainingSpec, Stage
from tests.pages import REPOSITORY, Block, blocks, documents

Manifest = dict[str, Any]
OURS = "llm-operator.io/v1alpha1"
FIELDS = {
    kind: {field.alias or name for name, field in model.model_fields.items()}
    for kind, model in (("LLMTraining", LLMTrainingSpec), ("LLMServing", LLMServingSpec), ("LLMApp", LLMAppSpec))
}
STAGE_FIELDS = {field.alias or name for name, field in Stage.model_fields.items()}
VALUES = set(yaml.safe_load((REPOSITORY / "charts/llm-operator/values.yaml").read_text()))
UNCHECKED = {
    "docs/design.md: apiVersion: llm-operator.io/v1alpha1": "a sketch of the whole API, with dots for what is left out",
    "docs/howto/evaluation.md: dataset_path: json": "a task file of lm-eval, which data/task_files.py reads",
}
"""Page and first line of a block, and why nothing checks it."""

BASES: dict[str, Manifest] = {
    "LLMTraining": {
        "resources": {"limits": {"nvidia.com/gpu": 8}},
        "storage": {"persistentVolumeClaim": {"claimName": "models"}},
        "model": {"uri": "pvc://models/base"},
        "stages": [
            {
                "name": "chat",
                "sft": {"dataset": {"uri": "pvc://corpus/chat.jsonl"}, "maxLength": 128},
                "globalBatchSize": 16,
            }
        ],
    },
    "LLMServing": {"model": {"training": {"name": "bilingual-chat"}}},
    "LLMApp": {
        "model": {"serving": {"name": "chat"}},
        "knowledge": [{"name": "manual", "sources": [{"name": "faq", "configMap": {"name": "faq"}}]}],
        "storage": {"persistentVolumeClaim": {"claimName": "models"}},
    },
}
SCRATCH = {
    "model": {
        "architecture": {
            "family": "llama",
            "config": {
                "hidden_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 16, "intermediate_size": 4096,
                "max_position_embeddings": 131072,
            },
        },
    },
    "tokenizer": {"train": {"vocabularySize": 32000}},
    "data": {"sources": [{"name": "books", "uri": "pvc://corpus/books/*.txt", "language": "en"}]},
    "stages": [{"name": "base", "pretrain": {"sequenceLength": 128, "steps": 10}}],
}  # fmt: skip
"""Under parts that begin with text."""


def begins_with_text(part: Manifest) -> bool:
    pretrains = any("pretrain" in stage for stage in part.get("stages", []))
    return pretrains or "data" in part or "architecture" in part.get("model", {})


@dataclass(frozen=True)
class Found:
    """``manifest`` is whole, with what the page leaves out; ``values`` are the chart's."""

    place: str
    manifest: Manifest | None = None
    values: Manifest | None = None

    @property
    def kind(self) -> str:
        return str((self.manifest or {}).get("kind"))

    @property
    def is_ours(self) -> bool:
        return self.manifest is not None and self.manifest.get("apiVersion") == OURS


def found() -> list[Found]:
    """All YAML of the pages but that of UNCHECKED."""
    return [
        one
        for block in blocks("yaml")
        if block.name not in UNCHECKED
        for document in documents(block)
        for one in told(block, document)
    ]


def told(block: Block, document: Manifest | list[Any]) -> Iterator[Found]:
    if isinstance(document, list):  # of stages
        document = {"stages": document}
    keys = set(document)
    if "apiVersion" in keys:
        yield Found(block.place, manifest=document)
    elif "spec" in keys and keys <= {"kind", "metadata", "spec"}:
        yield Found(block.place, manifest=completed(block, document["spec"], document.get("kind")))
    elif any(keys <= fields for fields in FIELDS.values()):
        yield Found(block.place, manifest=completed(block, document, None))
    elif keys <= STAGE_FIELDS:
        stage = BASES["LLMTraining"]["stages"][0] | document
        yield Found(block.place, manifest=completed(block, {"stages": [stage]}, None))
    elif keys <= VALUES:
        yield Found(block.place, values=document)
    else:
        raise AssertionError(f"{block.place}: neither a manifest, nor a part of one of ours, nor values of the chart")


def completed(block: Block, part: Manifest, kind: str | None) -> Manifest:
    """A part of a spec, by its fields of the first kind that has them all, laid over one that is right."""
    kinds = [name for name, fields in FIELDS.items() if set(part) <= fields and kind in (None, name)]
    assert kinds, f"{block.place}: {sorted(part)} are fields of neither kind"
    base = copy.deepcopy(BASES[kinds[0]])
    if kinds[0] == "LLMTraining" and begins_with_text(part):
        base |= copy.deepcopy(SCRATCH)
    return {"apiVersion": OURS, "kind": kinds[0], "metadata": {"name": "page"}, "spec": base | part}
