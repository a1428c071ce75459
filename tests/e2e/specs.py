"""Specs small enough for two CPU cores."""

from __future__ import annotations

from typing import Any

REQUESTS = {"requests": {"cpu": "100m", "memory": "512Mi"}}
# Of a server under load: without the limit nothing is left for the start of the next one on two CPU cores.
SERVING_RESOURCES = {**REQUESTS, "limits": {"cpu": "800m"}}
BASE_STEPS = 700
TRAINING: dict[str, Any] = {
    "nodes": 2,
    "resources": REQUESTS,
    "storage": {"persistentVolumeClaim": {"claimName": "models"}},
    "model": {
        "architecture": {
            "family": "llama",
            "config": {
                "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "max_position_embeddings": 256, "tie_word_embeddings": True,
            },
        }
    },
    "tokenizer": {"train": {"vocabularySize": 1024}},
    "data": {"sources": [{"name": "topics", "uri": "pvc://corpus/topics.jsonl", "language": "en"}]},
    "stages": [
        {
            "name": "base",
            "pretrain": {"sequenceLength": 128, "steps": BASE_STEPS},
            "globalBatchSize": 16, "microBatchSize": 8, "precision": "float32", "optimizer": {"learningRate": 0.003},
            "checkpoint": {"everySteps": 50}, "evaluation": {"everySteps": 300},
        },
        {
            "name": "chat",
            "sft": {"dataset": {"uri": "pvc://corpus/chat.jsonl"}, "epochs": 4, "maxLength": 128},
            "globalBatchSize": 16, "microBatchSize": 8, "optimizer": {"learningRate": 0.001, "weightDecay": 0.0},
        },
    ],
}  # fmt: skip
