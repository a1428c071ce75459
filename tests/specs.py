"""Specs that are right, and what makes others of them; the wrong ones are in wrong_trainings.py and wrong_stages.py."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from llm_operator.api.training import SHARED

Spec = dict[str, Any]

CONFIG = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
TRAINING: Spec = {
    "nodes": 2,
    "storage": {"persistentVolumeClaim": {"claimName": "models"}},
    "model": {"architecture": {"family": "llama", "config": CONFIG}},
    "tokenizer": {"train": {"vocabularySize": 1024}},
    "data": {"sources": [{"name": "books", "uri": "pvc://corpus/books/*.txt"}]},
    "stages": [
        {"name": "base", "pretrain": {"sequenceLength": 128, "steps": 100}},
        {"name": "chat", "sft": {"dataset": {"uri": "pvc://corpus/chat.jsonl"}, "maxLength": 128}},
    ],
}
MIXED = {"data__sources": [
    {"name": "books", "uri": "pvc://corpus/books/*.txt", "domain": "book", "language": "en"},
    {"name": "web-ja", "uri": "pvc://corpus/web/*.jsonl", "domain": "web", "language": "ja"},
]}  # fmt: skip
SERVING: Spec = {"model": {"training": {"name": "bilingual"}}}
REMOVE = object()


def changed(spec: Spec, **paths: Any) -> Spec:
    """A copy with values at paths such as stages__0__pretrain__steps; REMOVE removes."""
    made = copy.deepcopy(spec)
    for path, value in paths.items():
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split("__")]
        at: Any = made
        for parent in parents:
            at = at[parent] if isinstance(parent, int) else at.setdefault(parent, {})
        if value is REMOVE:
            del at[last]
        elif isinstance(last, int) and last == len(at):
            at.append(value)
        else:
            at[last] = value
    return made


@dataclass(frozen=True)
class Wrong:
    """``path`` and ``says`` must be in the problem. ``at_server``: the API server refuses it as well."""

    name: str
    spec: Spec
    path: str
    says: str
    at_server: bool = True


def wrong(name: str, path: str, says: str, *, at_server: bool = True, **paths: Any) -> Wrong:
    return Wrong(name, changed(TRAINING, **paths), path, says, at_server)


# Of families whose size data preparation tells: what the operator has no formula for.
BROUGHT = {
    "qwen2": {**CONFIG, "use_sliding_window": False, "tie_word_embeddings": True},
    "mistral": {**CONFIG, "head_dim": 16, "sliding_window": None},
    "gemma2": {
        **CONFIG,
        "query_pre_attn_scalar": 16,
        "final_logit_softcapping": 30.0,
        "layer_types": ["full_attention"] * 2,
    },
    "phi3": {**CONFIG, "resid_pdrop": 0.1},
    "olmo2": CONFIG,
    "smollm3": {**CONFIG, "no_rope_layers": [1, 0]},
    "granite": {**CONFIG, "logits_scaling": 8, "residual_multiplier": 0.22},
    "gpt_oss": {**CONFIG, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
}
GPUS = {"limits": {"nvidia.com/gpu": 8}}
MIXTURE = {"model__architecture": {"family": "mixtral", "config": {}}}
# 6.5 G parameters on 16 GPUs: ZeRO 1 takes 28.7 Gi of each, ZeRO 2 17.4 Gi, ZeRO 3 6.1 Gi
LARGE = {
    "model__architecture__config": {},
    "resources": {"limits": {"nvidia.com/gpu": 8}},
    "stages": [{"name": "base", "pretrain": {"sequenceLength": 128, "steps": 10}, "globalBatchSize": 16}],
}

PAIRS = {"dataset": {"uri": "pvc://corpus/pairs.jsonl"}, "maxLength": 128}
PROMPTS = {"dataset": {"uri": "pvc://corpus/prompts.jsonl"}, "maxPromptLength": 64, "maxCompletionLength": 64}
TASTE = {"name": "taste", "rewardModel": PAIRS}


def online(**settings: Any) -> dict[str, Any]:
    """A grpo stage named aligned; what all kinds share goes beside the kind."""
    shared = {name: settings.pop(name) for name in SHARED if name in settings}
    rewards = [{"model": {"stage": "taste"}}]
    return {
        "name": "aligned",
        "grpo": {**PROMPTS, "rewards": rewards, **settings},
        "model": {"stage": "chat"},
        **shared,
    }


def ppo(**settings: Any) -> dict[str, Any]:
    """A ppo stage named aligned."""
    made = online(**settings)
    answers = made.pop("grpo")
    return {**made, "ppo": answers}


LEGAL = {"name": "legal", "training": {"name": "bilingual", "stage": "legal"}}


def adapters(*given: dict[str, Any]) -> Spec:
    """A serving with them."""
    return changed(SERVING, adapters=list(given))


API_KEY = {"secretKeyRef": {"name": "keys", "key": "chat"}}
FORGETS = {"metric": "bitsPerByte", "atLeast": {"stage": "base", "delta": 0.1}}
TASK = {"name": "capitals", "uri": "pvc://corpus/tasks/capitals.yaml"}


def gated(*thresholds: dict[str, Any], gate: str = "block", **more: Any) -> dict[str, Any]:
    """An evaluation block with these thresholds."""
    return {"gate": gate, "thresholds": list(thresholds), **more}
