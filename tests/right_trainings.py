"""Specs of a training that the rules must let through."""

from __future__ import annotations

from typing import Any

from tests.specs import (
    BROUGHT,
    FORGETS,
    GPUS,
    MIXED,
    MIXTURE,
    PAIRS,
    PROMPTS,
    REMOVE,
    TASK,
    TASTE,
    TRAINING,
    Spec,
    changed,
    gated,
    online,
    ppo,
)


def by_column(settings: dict[str, Any], column: str) -> dict[str, Any]:
    """The same, of a dataset whose files have a name of their own for a column."""
    return {**settings, "dataset": {**settings["dataset"], "columns": {column: "theirs"}}}


RIGHT_TRAININGS: dict[str, Spec] = {
    "minimal": TRAINING,
    "columns by other names": changed(
        TRAINING,
        stages__1__sft__dataset__columns={"prompt": "question", "completion": "answer"},
        stages__2={"name": "taste", "rewardModel": by_column(PAIRS, "chosen")},
        stages__3={"name": "direct", "dpo": by_column(PAIRS, "rejected"), "model": {"stage": "chat"}},
        stages__4={
            "name": "marked",
            "kto": by_column(PAIRS, "label"),
            "model": {"stage": "chat"},
            "globalBatchSize": 8,
        },
        stages__5=online(**by_column(PROMPTS, "prompt")),
        stages__6={**ppo(**by_column(PROMPTS, "prompt")), "name": "played"},
    ),
    "compiled layers": changed(TRAINING, stages__0__pretrain__compile=True),
    "layers that stay as they are": changed(TRAINING, stages__0__pretrain__compile=False, stages__0__zeroStage=3),
    "expert parallelism": changed(TRAINING, **MIXTURE, stages__0__pretrain__expertParallel=2),
    "shared rows": changed(TRAINING, stages__0__sequenceParallel=2, stages__1__sequenceParallel=2),
    "shared layers": changed(
        TRAINING, stages__0__tensorParallel=2, stages__0__zeroStage=2, stages__1__tensorParallel=2
    ),
    "a gate": changed(
        TRAINING,
        stages__0__evaluation=gated(
            {"metric": "bitsPerByte/books", "max": 2}, gate="warn", prompts=["Once"], tokens=4096
        ),
        stages__1__evaluation=gated(
            FORGETS,
            {"metric": "loss", "max": 3.5},
            {"metric": "capitals/exact_match,first", "min": 0.25, "max": 1},
            {"metric": "capitals/acc", "atLeast": {"stage": "base", "metric": "bitsPerByte", "delta": 1}},
            corpus=True,
            tokens=4096,
            tasks=[{**TASK, "numFewshot": 2, "limit": 100}],
        ),
        stages__2={**TASTE, "evaluation": gated({"metric": "accuracy", "min": 0.6})},
    ),
    "restarts": changed(TRAINING, restarts={"own": 0, "windowSeconds": 60}, restartToken="2026-01-01T00:00:00Z"),
    "trackers": changed(
        TRAINING,
        tracking=[
            {"tensorboard": {}},
            {"mlflow": {"uri": "http://mlflow.ml.svc:5000/a", "experiment": "日本語", "credentials": {"name": "m"}}},
            {"wandb": {"project": "chat", "entity": "team", "uri": "https://wandb.lan", "credentials": {"name": "w"}}},
        ],
    ),
    "a run folder": changed(TRAINING, resumeFrom={"uri": "pvc://models/bilingual-0123abcd"}),
    "a restored run folder": changed(TRAINING, resumeFrom={"uri": "pvc://models/restored/2026-01-01/a.b_c-0123"}),
    "tokens": changed(TRAINING, stages__0__pretrain__steps=REMOVE, stages__0__pretrain__tokens=10_000),
    "a mixture by size": changed(TRAINING, stages__0__pretrain__mixture={}),
    "a mixture by temperature": changed(TRAINING, **MIXED, stages__0__pretrain__mixture={"temperature": 0.3}),
    "a mixture by weights, with limits and annealing": changed(
        TRAINING,
        **MIXED,
        stages__0__pretrain__mixture={
            "weights": [{"source": "books", "weight": 0}, {"domain": "web", "language": "ja", "weight": 2.5}],
            "maxEpochs": [{"source": "books", "epochs": 2}, {"epochs": 0.5}],
            "schedule": [
                {"fromTokens": 64_000, "temperature": 0},
                {"fromShare": 0.9, "weights": [{"source": "books", "weight": 3}, {"weight": 1}]},
            ],
        },
    ),
    "GPUs": changed(TRAINING, resources=GPUS, **{f"stages__{i}__globalBatchSize": 32 for i in range(2)}),
    "an existing model": changed(
        TRAINING, model={"uri": "pvc://models/x"}, tokenizer=REMOVE, data=REMOVE, stages=[TRAINING["stages"][1]]
    ),
    "from a hub, a bucket and a server": changed(
        TRAINING,
        model={"uri": "hf://team/model@v1.0"},
        tokenizer={"uri": "hf://team/model/tokenizer"},
        data__sources__0__uri="s3://corpora/ja/**/*.jsonl.gz",
        stages__1__sft__dataset__uri="https://example.com:8443/chat.jsonl?version=2",
        credentials=[
            {"secretName": "hub", "for": "hf"},
            {"secretName": "store", "for": "s3://corpora"},
            {"secretName": "web", "for": "https://example.com:8443"},
        ],
    ),
    "published to a bucket and a hub": changed(
        TRAINING,
        credentials=[{"secretName": "hub", "for": "hf"}, {"secretName": "store", "for": "s3://models"}],
        publish=[
            {"to": "s3://models/team/base", "stage": "base"},
            {"to": "s3://models/team/base-2/"},
            {"to": "hf://team/chat@v1/folder", "stage": "chat", "private": False},
            {"to": "hf://team/chat"},
        ],
    ),
    "the whole chain": changed(
        TRAINING,
        stages__2=TASTE,
        stages__3={"name": "direct", "dpo": PAIRS, "model": {"stage": "chat"}, "lora": {"rank": 8}},
        stages__4={"name": "marked", "kto": PAIRS, "model": {"stage": "chat"}, "globalBatchSize": 8},
        stages__5=online(rewards=[{"model": {"stage": "taste"}}, {"function": "checks:length", "weight": 0.5}]),
        stages__6={
            **ppo(rolloutBatchSize=16, critic={"stage": "taste"}, ptx={"sequenceLength": 64}),
            "name": "tutored",
        },
        stages__7={"name": "legal", "sft": PAIRS, "lora": {"rank": 8, "merge": True}},
    ),
    "a whole model after an adapter": changed(TRAINING, stages__1__lora={}, stages__2={"name": "full", "sft": PAIRS}),
    "an adapter on a merged one": changed(
        TRAINING, stages__1__lora={"merge": True}, stages__2={"name": "l", "sft": PAIRS, "lora": {}}
    ),
    "an adapter that goes on with another": changed(
        TRAINING, stages__1__lora={}, stages__2={"name": "l", "dpo": PAIRS, "lora": {"rank": 4}}
    ),
    "functions of the user's": changed(
        TRAINING,
        model__architecture__function="mine.models:make_model",
        stages__0__pretrain__lossFunction="mine.losses:loss",
        stages__0__optimizer={"function": "torch.optim:NAdam", "learningRate": 1e-3, "beta1": 0.8},
        stages__1__sft__lossFunction="mine.losses:loss",
        stages__2=ppo(rewards=[{"function": "a:b"}], criticOptimizer={"function": "mine:make_optimizer"}),
    ),
    **{
        f"{family} from scratch": changed(TRAINING, model__architecture={"family": family, "config": config})
        for family, config in BROUGHT.items()
    },
    "a rate by trials": changed(
        TRAINING, stages__0__pretrain__tune={"learningRate": {"minimum": 1e-4, "maximum": 0.01}}
    ),
    "a micro-batch by trials, and the rate of a narrower model": changed(
        TRAINING, stages__0__pretrain__tune={"microBatchSize": {"maximum": 4}, "baseWidth": 16}
    ),
    "a loss watch": changed(
        TRAINING,
        stages__0__lossWatch={"sigma": 4, "rateFactor": 0.5, "reduceOnPlateau": {}, "earlyStop": {"minDelta": 0.01}},
        stages__1__lossWatch={},
    ),
    "Muon": changed(TRAINING, stages__0__optimizer={"type": "muon", "muonLearningRate": 0.01}),
    "what has a rule and is right": changed(
        TRAINING,
        stages__0__microBatchSize=2,
        stages__2={"name": "d", "dpo": {**PAIRS, "lossType": ["sigmoid", "sft"], "lossWeights": [1, 0.5]}},
        stages__3={"name": "k", "kto": PAIRS, "microBatchSize": 4},
    ),
    "filters of the corpus": changed(
        TRAINING,
        data__sources__0__language="ja-JP",
        data__quality={
            **{name: {} for name in ("personalData", "language", "c4", "repetition", "japanese")},
            "gopher": {"minimumWords": 20, "maximumWords": 20, "minimumMeanWordLength": 2.5},
            "nearDuplicates": {"threshold": 0.7, "ngram": 3},
            "decontamination": {"uris": ["pvc://evaluation/*.jsonl"], "ngram": 8},
        },
    ),
    "a stage's model by name": changed(TRAINING, stages__1__model={"stage": "base"}),
}
