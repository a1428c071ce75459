"""Specs that are right, and every way to get one wrong: one table for pydantic and for the API server."""

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
OF_BOOKS = {"source": "books"}
# name, field below the mixture, what is said, whether the API server refuses it as well, the mixture
WRONG_MIXTURES: tuple[tuple[str, str, str, bool, Any], ...] = (
    ("weights and temperature", "", "at most one of weights and temperature", True,
     {"weights": [OF_BOOKS], "temperature": 0.3}),
    ("weights that sum to zero", ".weights", "sum to zero", True,
     {"weights": [{**OF_BOOKS, "weight": 0}, {"weight": 0}]}),
    ("no weights", ".weights", "at least 1", True, {"weights": []}),
    ("a weight below zero", ".weights[0].weight", "greater than or equal to 0", True, {"weights": [{"weight": -1}]}),
    ("a temperature as others have it", ".temperature", "less than or equal to 1", True, {"temperature": 5}),
    ("a limit of nothing", ".maxEpochs[0].epochs", "greater than 0", True, {"maxEpochs": [{"epochs": 0}]}),
    ("a phase from nowhere", ".schedule[0]", "exactly one of fromShare, fromTokens", True,
     {"schedule": [{"temperature": 1}]}),
    ("a phase from two places", ".schedule[0]", "exactly one of fromShare, fromTokens", True,
     {"schedule": [{"fromShare": 0.5, "fromTokens": 1024, "temperature": 1}]}),
    ("a phase that changes nothing", ".schedule[0]", "needs weights or a temperature", True,
     {"schedule": [{"fromShare": 0.5}]}),
    ("a phase with both", ".schedule[0]", "at most one of weights and temperature", True,
     {"schedule": [{"fromShare": 0.5, "weights": [OF_BOOKS], "temperature": 0.3}]}),
    ("a phase of weights that sum to zero", ".schedule[0].weights", "sum to zero", True,
     {"schedule": [{"fromShare": 0.5, "weights": [{"weight": 0}]}]}),
    ("a phase from the end on", ".schedule[0].fromShare", "less than 1", True,
     {"schedule": [{"fromShare": 1, "temperature": 1}]}),
    ("a phase beyond the stage's tokens", ".schedule[0]", "begins at row 801 of the stage's 800", False,
     {"schedule": [{"fromTokens": 801 * 128, "temperature": 1}]}),
    ("phases that don't follow", ".schedule[1]", "must begin after row 400", False,
     {"schedule": [{"fromShare": 0.5, "temperature": 1}, {"fromTokens": 400 * 128, "temperature": 0}]}),
    ("a source that isn't there", ".weights[1]", "spec.data.sources has books (book, en), web-ja (web, ja)", False,
     {"weights": [OF_BOOKS, {"source": "web"}]}),
    ("a domain in a language that it hasn't", ".weights[0]", "selects domain 'book' language 'ja'", False,
     {"weights": [{"domain": "book", "language": "ja"}]}),
    ("a source that goes by another entry", ".weights[1]", "go by entries before it", False,
     {"weights": [{"domain": "book"}, OF_BOOKS]}),
    ("a limit for nobody", ".maxEpochs[0]", "no source is so", False, {"maxEpochs": [{"language": "de", "epochs": 1}]}),
    ("a phase of a source that isn't there", ".schedule[0].weights[0]", "no source is so", False,
     {"schedule": [{"fromShare": 0.5, "weights": [{"source": "web"}]}]}),
)  # fmt: skip
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
SOURCE = {"name": "books", "uri": "pvc://corpus/more.txt"}
BASE = TRAINING["stages"][0]
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


def nested(depth: int) -> Any:
    """An object in an object in an object."""
    made: Any = 1
    for _ in range(depth):
        made = {"a": made}
    return made


LEGAL = {"name": "legal", "training": {"name": "bilingual", "stage": "legal"}}


def adapters(*given: dict[str, Any]) -> Spec:
    """A serving with them."""
    return changed(SERVING, adapters=list(given))


API_KEY = {"secretKeyRef": {"name": "keys", "key": "chat"}}


def gated(*thresholds: dict[str, Any], gate: str = "block", **more: Any) -> dict[str, Any]:
    """An evaluation block with these thresholds."""
    return {"gate": gate, "thresholds": list(thresholds), **more}


GATED = "spec.stages[1].evaluation"
FORGETS = {"metric": "bitsPerByte", "atLeast": {"stage": "base", "delta": 0.1}}
TASK = {"name": "capitals", "uri": "pvc://corpus/tasks/capitals.yaml"}

WRONG_TRAININGS = (
    wrong("architecture and uri", "spec.model", "exactly one of architecture, uri", model__uri="pvc://models/x"),
    wrong("neither architecture nor uri", "spec.model", "exactly one of architecture, uri", model__architecture=REMOVE),
    wrong("no stages", "spec.stages", "at least 1", stages=[]),
    wrong("two stages of one name", "spec.stages", "base", stages__1__name="base"),
    wrong("a stage named data", "spec.stages", "data preparation", stages__0__name="data"),
    wrong("two kinds in a stage", "spec.stages[0]", "exactly one of", stages__0__sft=TRAINING["stages"][1]["sft"]),
    wrong("no kind in a stage", "spec.stages[0]", "exactly one of", stages__0__pretrain=REMOVE),
    wrong("a name that is none", "spec.stages[0].name", "pattern", stages__0__name="Base_1"),
    wrong("a seed that is a date and time", "spec.stages[0].seed", "less than or equal to 4294967295",
          stages__0__seed=20251125123456),
    wrong("a seed of 65 bits", "spec.stages[0].seed", "less than or equal to 4294967295", stages__0__seed=2**64),
    wrong("a seed of the data of 65 bits", "spec.data.seed", "less than or equal to", data__seed=2**64),
    wrong("steps and tokens", "spec.stages[0].pretrain", "exactly one of steps, tokens",
          stages__0__pretrain__tokens=1000),
    wrong("neither steps nor tokens", "spec.stages[0].pretrain", "exactly one of steps, tokens",
          stages__0__pretrain__steps=REMOVE),
    *(wrong(f"a mixture: {name}", f"spec.stages[0].pretrain.mixture{path}", says, at_server=at_server, **MIXED,
            stages__0__pretrain__mixture=mixture) for name, path, says, at_server, mixture in WRONG_MIXTURES),
    wrong("a batch that the micro-batch doesn't divide", "spec.stages[0].globalBatchSize", "divisible",
          stages__0__globalBatchSize=10, stages__0__microBatchSize=4),
    wrong("a batch that the processes don't divide", "spec.stages[0].globalBatchSize", "2 nodes",
          stages__0__globalBatchSize=9, at_server=False),
    wrong("sequences beyond the model's", "spec.stages[0].pretrain.sequenceLength", "beyond the model's 256",
          stages__0__pretrain__sequenceLength=512, at_server=False),
    wrong("rows beyond the model's", "spec.stages[1].sft.maxLength", "beyond the model's 256",
          stages__1__sft__maxLength=512, at_server=False),
    wrong("a later stage's model", "spec.stages[0].model.stage", "comes later",
          stages__0__model={"stage": "chat"}, at_server=False),
    wrong("a missing stage's model", "spec.stages[1].model.stage", "does not exist",
          stages__1__model={"stage": "nowhere"}, at_server=False),
    wrong("a stage's model twice", "spec.stages[1].model", "exactly one of stage, uri",
          stages__1__model={"stage": "base", "uri": "pvc://models/x"}),
    wrong("a pretrain model twice", "spec.stages[0].model", "exactly one of stage, uri",
          stages__0__model={"stage": "base", "uri": "pvc://models/x"}),
    wrong("nothing to fine-tune", "spec.stages[0].model", "no model to start from",
          stages=[TRAINING["stages"][1]], at_server=False),
    wrong("processes that contradict the GPUs", "spec.processesPerNode", "8 GPUs",
          processesPerNode=4, resources=GPUS, stages__0__globalBatchSize=16, at_server=False),
    wrong("half a GPU", "spec.resources.limits", "no whole number",
          resources={"limits": {"nvidia.com/gpu": "500m"}}, at_server=False),
    wrong("GPUs requested but not limited", "spec.resources.requests", "must equal the limit",
          resources={"requests": {"nvidia.com/gpu": 8}}, stages__0__globalBatchSize=16,
          stages__1__globalBatchSize=16, at_server=False),
    wrong("two sources of one name", "spec.data.sources", "books", data__sources__1=SOURCE),
    wrong("a source twice", "spec.data.sources[1].uri", "'books' too", at_server=False,
          data__sources__1={**TRAINING["data"]["sources"][0], "name": "again"}),
    wrong("a source without the language to look for", "spec.data.sources", "language",
          data__quality={"language": {}}, data__sources__0__language=""),
    wrong("a language that can't be told", "spec.data.sources[0].language", "'tlh' is no language", at_server=False,
          data__quality={"language": {}}, data__sources__0__language="tlh"),
    wrong("fewest words above the most", "spec.data.quality.gopher.minimumWords", "more than maximumWords",
          data__quality={"gopher": {"minimumWords": 100, "maximumWords": 99}}),
    wrong("shortest words above the longest", "spec.data.quality.gopher.minimumMeanWordLength", "more than maximum",
          data__quality={"gopher": {"minimumMeanWordLength": 5, "maximumMeanWordLength": 4.5}}),
    wrong("a share above 1", "spec.data.quality.repetition.maximumDuplicateLines", "less than or equal to 1",
          data__quality={"repetition": {"maximumDuplicateLines": 30}}),
    wrong("a threshold too few", "spec.data.quality.repetition.maximumTopNgrams", "3",
          data__quality={"repetition": {"maximumTopNgrams": [0.2, 0.1]}}),
    wrong("a similarity that all have", "spec.data.quality.nearDuplicates.threshold", "greater than or equal to 0.3",
          data__quality={"nearDuplicates": {"threshold": 0.2}}),
    wrong("decontamination of nothing", "spec.data.quality.decontamination.uris", "equired",
          data__quality={"decontamination": {}}),
    wrong("an evaluation set that climbs out", "spec.data.quality.decontamination.uris[0]", "'..'", at_server=False,
          data__quality={"decontamination": {"uris": ["pvc://corpus/../secret"]}}),
    wrong("a source that is no claim", "spec.data.sources[0].uri", "pvc://",
          data__sources__0__uri="gs://example/books"),
    wrong("a source with a password", "spec.data.sources[0].uri", "put them into a Secret", at_server=False,
          data__sources__0__uri="https://me:secret@example.com/books.txt"),
    wrong("a source that is a whole repository", "spec.data.sources[0].uri", "name the files in it", at_server=False,
          data__sources__0__uri="hf://datasets/team/books"),
    wrong("a source that is a whole bucket", "spec.data.sources[0].uri", "names a whole bucket", at_server=False,
          data__sources__0__uri="s3://books"),
    wrong("a tokenizer that is a file", "spec.tokenizer.uri", "a tokenizer is a folder", at_server=False,
          tokenizer={"uri": "https://example.com/tokenizer.json"}),
    wrong("a tokenizer of data", "spec.tokenizer.uri", "is a repository of data", at_server=False,
          tokenizer={"uri": "hf://datasets/team/books/tokenizer"}),
    wrong("two Secrets for one", "spec.credentials", "2 Secrets are for hf", at_server=False,
          credentials=[{"secretName": "a", "for": "hf"}, {"secretName": "b", "for": "hf"}]),
    wrong("credentials for nothing", "spec.credentials[0].for", "", credentials=[{"secretName": "a", "for": "ftp://x"}]),
    wrong("a result of a stage that isn't there", "spec.publish", "does not exist",
          publish=[{"to": "s3://models/chat", "stage": "chart"}]),
    wrong("a result to a whole bucket", "spec.publish[0].to", "match", publish=[{"to": "s3://models"}]),
    wrong("a result to a server", "spec.publish[0].to", "match", publish=[{"to": "https://example.com/chat"}]),
    wrong("a result to a glob", "spec.publish[0].to", "match", publish=[{"to": "s3://models/*"}]),
    wrong("a result to a repository of data", "spec.publish[0].to", "a repository of models",
          publish=[{"to": "hf://datasets/team/chat"}]),
    wrong("a result that climbs out", "spec.publish[0].to", "'..'", at_server=False,
          publish=[{"to": "s3://models/a/../b"}]),
    wrong("two results in one place", "spec.publish", "hf://team/chat",
          publish=[{"to": "hf://team/chat"}, {"to": "hf://team/chat", "stage": "base"}]),
    wrong("a result among another's files", "spec.publish[1].to", "lie in one another", at_server=False,
          publish=[{"to": "s3://models/a"}, {"to": "s3://models/a/b/", "stage": "base"}]),
    wrong("more results than a status tells", "spec.publish", "8",
          publish=[{"to": f"s3://models/{index}"} for index in range(9)]),
    wrong("a source that climbs out", "spec.data.sources[0].uri", "'..'",
          data__sources__0__uri="pvc://corpus/../secret", at_server=False),
    wrong("pretrain without data", "spec.data", "required", data=REMOVE, tokenizer={"uri": "pvc://models/tokenizer"}),
    wrong("a tokenizer to train without data", "spec.data", "required",
          data=REMOVE, model={"uri": "pvc://models/x"}, stages=[TRAINING["stages"][1]]),
    wrong("an architecture without tokenizer", "spec.tokenizer", "required", tokenizer=REMOVE),
    wrong("a tokenizer twice", "spec.tokenizer", "exactly one of train, uri", tokenizer__uri="pvc://models/tokenizer"),
    wrong("vocab_size in the architecture", "spec.model.architecture", "follows from the tokenizer",
          model__architecture__config__vocab_size=5, at_server=False),
    wrong("heads that don't divide the size", "num_attention_heads", "not divisible",
          model__architecture__config__num_attention_heads=7, at_server=False),
    wrong("a key that the family doesn't have", "spec.model.architecture.config.hiden_size", "use hidden_size",
          model__architecture__config__hiden_size=5, at_server=False),
    wrong("more experts per token than there are", "num_experts_per_tok", "above num_local_experts 4",
          model__architecture={"family": "mixtral", "config": {"num_local_experts": 4, "num_experts_per_tok": 5}},
          at_server=False),
    wrong("more experts per token than by default", "num_experts_per_tok", "above num_local_experts 8", at_server=False,
          model__architecture={"family": "mixtral", "config": {"num_experts_per_tok": 9}}),
    wrong("heads that don't divide the default size", "num_attention_heads", "hidden_size 4096 is not divisible by 6",
          model__architecture={"family": "jamba", "config": {"num_attention_heads": 6}}, at_server=False),
    wrong("groups that don't divide the experts", "n_group", "n_routed_experts 256 is not divisible by 3",
          model__architecture={"family": "deepseek_v3", "config": {"n_group": 3}}, at_server=False),
    wrong("heads that are not the inner width", "num_heads", "hidden_size 4096; use 128",
          model__architecture={"family": "mamba2", "config": {"num_heads": 64}}, at_server=False),
    wrong("attention beyond its period", "attn_layer_offset", "beyond attn_layer_period 4", at_server=False,
          model__architecture={"family": "jamba", "config": {"attn_layer_period": 4, "attn_layer_offset": 4}}),
    wrong("two trackers in one", "spec.tracking[0]", "exactly one of",
          tracking=[{"tensorboard": {}, "wandb": {"project": "a"}}]),
    wrong("no tracker in one", "spec.tracking[1]", "exactly one of", tracking=[{"tensorboard": {}}, {}]),
    wrong("a tracker's password in its URI", "spec.tracking[0].mlflow.uri", "match",
          tracking=[{"mlflow": {"uri": "https://user:secret@mlflow:5000"}}]),
    wrong("a tracker without an address", "spec.tracking[0].mlflow.uri", "match",
          tracking=[{"mlflow": {"uri": "mlruns"}}]),
    wrong("a W&B project that is a path", "spec.tracking[0].wandb.project", "match",
          tracking=[{"wandb": {"project": "a/b"}}]),
    wrong("more trackers than anybody reads", "spec.tracking", "4", tracking=[{"tensorboard": {}}] * 5),
    wrong("experts that a dense model doesn't have", "pretrain.expertParallel", "not for the family llama",
          stages__0__pretrain__expertParallel=2, at_server=False),
    wrong("experts on more processes than there are", "spec.stages[0].pretrain.expertParallel", "2 processes",
          **MIXTURE, stages__0__pretrain__expertParallel=4, at_server=False),
    wrong("experts that the processes don't divide", "spec.stages[0].pretrain.expertParallel", "8 experts",
          **MIXTURE, stages__0__pretrain__expertParallel=3, nodes=3, at_server=False),
    wrong("experts and weights spread", "spec.stages[0].zeroStage", "use 1 or 2",
          **MIXTURE, stages__0__pretrain__expertParallel=2, stages__0__zeroStage=3, at_server=False),
    wrong("experts and Muon", "spec.stages[0].optimizer.type", "use adamw", **MIXTURE, at_server=False,
          stages__0__pretrain__expertParallel=2, stages__0__optimizer={"type": "muon"}),
    wrong("rows shared by processes that aren't there", "spec.stages[0].sequenceParallel", "not divisible by 4",
          at_server=False, stages__0__sequenceParallel=4),
    wrong("rows shared in a stage that can't", "spec.stages[2].sequenceParallel", "is for pretrain and sft",
          stages__2=TASTE | {"sequenceParallel": 2}),
    wrong("layers shared in a stage that can't", "spec.stages[2].tensorParallel", "is for pretrain and sft",
          stages__2=TASTE | {"tensorParallel": 2}),
    wrong("rows and layers shared", "spec.stages[0].tensorParallel", "use one of them",
          stages__0__sequenceParallel=2, stages__0__tensorParallel=2),
    wrong("layers and weights spread", "spec.stages[0].zeroStage", "use 1 or 2",
          stages__0__tensorParallel=2, stages__0__zeroStage=3),
    wrong("an adapter of shared layers", "spec.stages[0].lora", "does not go with tensorParallel",
          stages__0__tensorParallel=2, stages__0__lora={"rank": 8}),
    wrong("a row that its processes don't divide", "spec.stages[0].pretrain.sequenceLength",
          "divisible by sequenceParallel", stages__0__sequenceParallel=2, stages__0__pretrain__sequenceLength=127),
    wrong("heads that the processes of a row don't divide", "spec.stages[0].sequenceParallel", "attention heads",
          at_server=False, nodes=3, stages__0__sequenceParallel=3, stages__0__globalBatchSize=32,
          stages__0__pretrain__sequenceLength=126),
    wrong("shared rows of a state-space model", "spec.stages[0].sequenceParallel", "not for the family mamba",
          at_server=False, stages__0__sequenceParallel=2, model__architecture={"family": "mamba", "config": {}}),
    wrong("shared layers of a mixture", "spec.stages[0].tensorParallel", "not for the family mixtral",
          at_server=False, **MIXTURE, stages__0__tensorParallel=2),
    wrong("shared rows and the balance of experts", "spec.stages[1].sft.routerAuxLossCoef", "set it to 0",
          at_server=False, **MIXTURE, stages__1__sequenceParallel=2),
    wrong("shared rows and experts", "spec.stages[0].sequenceParallel", "pretrain.expertParallel", at_server=False,
          **MIXTURE, stages__0__sequenceParallel=2, stages__0__pretrain__expertParallel=2),
    wrong("shared rows and a loss of the user's", "spec.stages[0].sequenceParallel", "lossFunction", at_server=False,
          stages__0__sequenceParallel=2, stages__0__pretrain__lossFunction="a:b"),
    wrong("shared layers and Muon", "spec.stages[0].optimizer.type", "use adamw", at_server=False,
          stages__0__tensorParallel=2, stages__0__optimizer={"type": "muon"}),
    wrong("shared layers and an optimizer of the user's", "spec.stages[0].optimizer.function", "tensorParallel",
          at_server=False, stages__0__tensorParallel=2, stages__0__optimizer={"function": "a:b"}),
    wrong("a model beyond the GPU's memory", "spec.stages[0].zeroStage", "use zeroStage 2",
          **LARGE, gpuMemory="24Gi", at_server=False),
    wrong("a model beyond these GPUs' memory", "spec.stages[0].zeroStage", "use zeroStage 3 on 32 GPUs",
          **LARGE, gpuMemory="4Gi", at_server=False),
    wrong("a memory that is no quantity", "spec.gpuMemory", "80", gpuMemory="80 GB"),
    wrong("a family that we don't have", "spec.model.architecture.family", "llama",
          model__architecture__family="transformer"),
    wrong("a key that no family has", "spec.model.architecture.config.sliding_windows", "use sliding_window",
          model__architecture={"family": "mistral", "config": {"sliding_windows": 8}}, at_server=False),
    wrong("shared heads that don't divide", "spec.model.architecture.config.num_key_value_heads", "use a divisor",
          model__architecture={"family": "qwen2", "config": {**CONFIG, "num_key_value_heads": 3}}, at_server=False),
    wrong("a flag that is a word", "spec.model.architecture.config.use_sliding_window", "boolean",
          model__architecture={"family": "qwen2", "config": {"use_sliding_window": "no"}}),
    wrong("Muon for the critic", "spec.stages[2].ppo.criticOptimizer.muonLearningRate", "no such field",
          at_server=False, stages__2=ppo(rewards=[{"function": "a:b"}], criticOptimizer={"muonLearningRate": 0.02})),
    wrong("a warm-up as long as the run", "spec.stages[0].schedule.warmupSteps", "leaves none",
          stages__0__schedule={"warmupSteps": 100}, at_server=False),
    wrong("a warm-up longer than its tokens last", "spec.stages[0].schedule.warmupSteps", "none of the 10 steps",
          stages__0__schedule={"warmupSteps": 11}, at_server=False,
          stages__0__pretrain={"sequenceLength": 128, "tokens": 8 * 128 * 9 + 1}, stages__0__globalBatchSize=8),
    wrong("a plateau of a loss that isn't there", "spec.stages[2].lossWatch", "held-out loss of pretrain, sft",
          stages__2=ppo(rewards=[{"function": "a:b"}]) | {"lossWatch": {"reduceOnPlateau": {}}}),
    wrong("an early stop without held-out rows", "spec.stages[1].lossWatch", "raise validationFraction",
          at_server=False, stages__1__lossWatch={"earlyStop": {}},
          stages__1__sft__dataset={"uri": "pvc://corpus/chat.jsonl", "validationFraction": 0}),
    wrong("rates that don't rise", "spec.stages[0].pretrain.tune.learningRate.minimum", "must be less than maximum",
          stages__0__pretrain__tune={"learningRate": {"minimum": 0.1}}),
    wrong("a largest micro-batch below the first", "spec.stages[0].pretrain.tune.microBatchSize.maximum",
          "must not be less than microBatchSize", stages__0__microBatchSize=4,
          stages__0__pretrain__tune={"microBatchSize": {"maximum": 2}}),
    wrong("no largest micro-batch", "spec.stages[0].pretrain.tune.microBatchSize.maximum", "1",
          stages__0__pretrain__tune={"microBatchSize": {"maximum": 0}}),
    wrong("a width of nothing", "spec.stages[0].pretrain.tune.baseWidth", "1",
          stages__0__pretrain__tune={"baseWidth": 0}),
    wrong("a base width and Muon", "spec.stages[0].pretrain.tune.baseWidth", "is for AdamW and all weights",
          stages__0__pretrain__tune={"baseWidth": 16}, stages__0__optimizer={"type": "muon"}),
    wrong("a base width and an adapter", "spec.stages[0].pretrain.tune.baseWidth", "is for AdamW and all weights",
          stages__0__pretrain__tune={"baseWidth": 16}, stages__0__lora={}),
    wrong("a base width of a family of experts", "spec.stages[0].pretrain.tune.baseWidth", "of the family mixtral",
          **MIXTURE, stages__0__pretrain__tune={"baseWidth": 16}, at_server=False),
    wrong("a base width and one matrix for two", "spec.stages[0].pretrain.tune.baseWidth", "tie_word_embeddings: false",
          model__architecture__config={**CONFIG, "tie_word_embeddings": True},
          stages__0__pretrain__tune={"baseWidth": 16}, at_server=False),
    wrong("a base width of a model that is there", "spec.stages[0].pretrain.tune.baseWidth",
          "is for a model from scratch", model={"uri": "pvc://models/llama"}, tokenizer=None,
          stages__0__pretrain__tune={"baseWidth": 16}, at_server=False),
    wrong("a base width of a model of the user's", "spec.stages[0].pretrain.tune.baseWidth",
          "makes the first weights", model__architecture__function="a:b",
          stages__0__pretrain__tune={"baseWidth": 16}, at_server=False),
    wrong("a window of too few steps", "spec.stages[0].lossWatch.window", "8",
          stages__0__lossWatch={"window": 7}),
    wrong("a rate that rises after a rollback", "spec.stages[0].lossWatch.rateFactor", "1",
          stages__0__lossWatch={"rateFactor": 1.5}),
    wrong("a plateau that changes nothing", "spec.stages[0].lossWatch.reduceOnPlateau.factor", "1",
          stages__0__lossWatch={"reduceOnPlateau": {"factor": 1}}),
    wrong("a learning rate of Muon for AdamW", "spec.stages[0].optimizer.muonLearningRate", "set type: muon",
          stages__0__optimizer={"muonLearningRate": 0.02}),
    wrong("an optimizer of the user's and Muon", "spec.stages[0].optimizer.function", "remove it, or type: muon",
          stages__0__optimizer={"type": "muon", "function": "a:b"}),
    wrong("an optimizer that is no name", "spec.stages[1].optimizer.function", "pattern",
          stages__1__optimizer={"function": "torch.optim.AdamW"}),
    wrong("a loss that is no name", "spec.stages[1].sft.lossFunction", "pattern",
          stages__1__sft__lossFunction="lambda outputs: 0"),
    wrong("a model that is no name", "spec.model.architecture.function", "pattern",
          model__architecture__function="make_model"),
    wrong("experts and an optimizer of the user's", "spec.stages[0].optimizer.function", "leave it out", **MIXTURE,
          at_server=False, stages__0__pretrain__expertParallel=2, stages__0__optimizer={"function": "a:b"}),
    wrong("a shared field in the kind", "spec.stages[1]", "globalBatchSize of sft stands beside sft", at_server=False,
          stages__1__sft__globalBatchSize=8),
    wrong("a shared value out of its bounds", "spec.stages[1].zeroStage", "less than or equal to 3",
          stages__1__zeroStage=4),
    wrong("a size that is a word", "config.hidden_size", "integer",
          model__architecture__config__hidden_size="64"),
    wrong("more layers than anybody counts", "config.num_hidden_layers", "1024",
          model__architecture__config__num_hidden_layers=10**9),
    wrong("a model beyond all machines", "spec.model.architecture.config", "beyond all machines", at_server=False,
          model__architecture={"family": "llama", "config": {"hidden_size": 10**8, "num_attention_heads": 1}}),
    wrong("a shared field by another name", "spec.stages[1].global_batch_size", "no such field", at_server=False,
          stages__1__global_batch_size=64),
    wrong("a deep value", "config.rope_parameters.rope_type", "string",
          model__architecture__config__rope_parameters={"rope_type": nested(900)}),
    wrong("a period of no layers", "config.attn_layer_period", "",
          model__architecture={"family": "jamba", "config": {"attn_layer_period": 0}}),
    wrong("the ids of tokens in the architecture", "config.eos_token_id", "follows from the tokenizer",
          model__architecture__config__eos_token_id=5, at_server=False),
    wrong("Muon to fine-tune", "spec.stages[1].optimizer.type", "adamw",
          stages__1__optimizer={"type": "muon"}),
    wrong("a reward model as a policy", "spec.stages[3].model.stage", "a reward model, which writes no text",
          stages__2=TASTE, stages__3={"name": "d", "dpo": PAIRS, "model": {"stage": "taste"}}, at_server=False),
    wrong("a policy as a reward", "spec.stages[3].grpo.rewards[0].model.stage", "a language model; name one of taste",
          stages__2=TASTE, stages__3=online(rewards=[{"model": {"stage": "chat"}}]), at_server=False),
    wrong("a reward that is a model and a function", "spec.stages[2].grpo.rewards[0]", "exactly one of",
          stages__2=online(rewards=[{"model": {"stage": "chat"}, "function": "a:b"}])),
    wrong("a function that is no name", "spec.stages[2].grpo.rewards[0].function", "pattern",
          stages__2=online(rewards=[{"function": "lambda: 1"}])),
    wrong("half a group of answers", "spec.stages[2].globalBatchSize", "numGenerations",
          stages__2=online(rewards=[{"function": "a:b"}], globalBatchSize=12)),
    wrong("vLLM without GPUs", "spec.stages[2].grpo.vllm", "remove vllm or set resources.limits[nvidia.com/gpu]",
          at_server=False, stages__2=online(rewards=[{"function": "a:b"}], vllm={})),
    wrong("vLLM over half the processes and a bit", "spec.stages[2].grpo.vllm.tensorParallelSize", "does not divide",
          at_server=False, resources=GPUS,
          stages__2=online(rewards=[{"function": "a:b"}], globalBatchSize=128, vllm={"tensorParallelSize": 3})),
    wrong("vLLM in a ppo stage without GPUs", "spec.stages[2].ppo.vllm", "remove vllm",
          at_server=False, stages__2=ppo(rewards=[{"function": "a:b"}], vllm={})),
    wrong("half a batch of a rollout", "spec.stages[2].ppo.rolloutBatchSize", "multiple of globalBatchSize",
          stages__2=ppo(rewards=[{"function": "a:b"}], rolloutBatchSize=12)),
    wrong("a critic that is a policy", "spec.stages[3].ppo.critic.stage", "a language model; name one of taste",
          stages__2=TASTE, stages__3=ppo(critic={"stage": "chat"}), at_server=False),
    wrong("pretraining beside PPO without a corpus", "spec.data", "ptx", at_server=False,
          data=REMOVE, model={"uri": "pvc://models/x"}, tokenizer=REMOVE,
          stages=[{"name": "p", "ppo": {**PROMPTS, "rewards": [{"function": "a:b"}], "ptx": {"sequenceLength": 64}}}]),
    wrong("answers beyond the model's positions", "spec.stages[2].grpo.maxCompletionLength", "beyond the model's 256",
          stages__2=online(rewards=[{"function": "a:b"}], maxCompletionLength=256), at_server=False),
    wrong("a weight too few", "spec.stages[2].dpo.lossWeights", "a weight for each of lossType",
          stages__2={"name": "d", "dpo": {**PAIRS, "lossType": ["sigmoid", "sft"], "lossWeights": [1.0]}}),
    wrong("a loss twice", "spec.stages[2].dpo.lossType", "given 2 times",
          stages__2={"name": "d", "dpo": {**PAIRS, "lossType": ["sft", "sft"]}}, at_server=False),
    wrong("EXO without smoothing", "spec.stages[2].dpo.labelSmoothing", "exo_pair needs one above 0",
          stages__2={"name": "d", "dpo": {**PAIRS, "lossType": ["exo_pair"]}}, at_server=False),
    wrong("a loss that isn't there", "spec.stages[2].dpo.lossType", "sigmoid",
          stages__2={"name": "d", "dpo": {**PAIRS, "lossType": ["sigmoidal"]}}),
    wrong("a batch of one for KTO", "spec.stages[2].microBatchSize", "greater than or equal to 2",
          stages__2={"name": "k", "kto": PAIRS, "microBatchSize": 1}),
    wrong("an adapter of no weights", "spec.stages[0].lora", "from scratch", at_server=False,
          stages__0__lora={}),
    wrong("other modules on an adapter", "spec.stages[2].lora.targetModules", "use the same", at_server=False,
          stages__1__lora={}, stages__2={"name": "legal", "sft": PAIRS, "lora": {"targetModules": ["q_proj"]}}),
    wrong("DoRA on an adapter", "spec.stages[2].lora.dora", "set lora.merge in stage 'chat'", at_server=False,
          stages__1__lora={}, stages__2={"name": "legal", "sft": PAIRS, "lora": {"dora": True}}),
    wrong("an adapter on experts' adapter", "spec.stages[2].lora.experts", "set lora.merge in stage 'chat'",
          model__architecture={"family": "mixtral"}, stages__1__lora={"experts": True},
          stages__2={"name": "legal", "sft": PAIRS, "lora": {}}, at_server=False),
    wrong("a reward model's adapter on an adapter", "spec.stages[2].model", "set lora.merge in stage 'chat'",
          stages__1__lora={}, stages__2={**TASTE, "lora": {}}, at_server=False),
    wrong("a reward model from an adapter", "spec.stages[2].model", "set lora.merge in stage 'chat'",
          stages__1__lora={}, stages__2=TASTE, at_server=False),
    wrong("an adapter as a reward", "spec.stages[3].grpo.rewards[0].model.stage", "set lora.merge in stage 'taste'",
          stages__2={"name": "taste", "rewardModel": PAIRS, "lora": {}}, stages__3=online(), at_server=False),
    wrong("experts of a dense model", "spec.stages[1].lora.experts", "llama has no experts", at_server=False,
          stages__1__lora={"experts": True}),
    wrong("DoRA on experts", "spec.stages[1].lora.dora", "remove dora, or experts", at_server=False,
          model__architecture={"family": "mixtral"}, stages__1__lora={"experts": True, "dora": True}),
    wrong("dropout on experts", "spec.stages[1].lora.dropout", "set 0 or remove experts", at_server=False,
          model__architecture={"family": "mixtral"}, stages__1__lora={"experts": True, "dropout": 0.1}),
    wrong("QLoRA without CUDA", "spec.stages[1].lora.quantization", "have no GPU", at_server=False,
          stages__1__lora={"quantization": "nf4"}),
    wrong("QLoRA with ZeRO-3", "spec.stages[1].lora.quantization", "stages[1].zeroStage to 2 or less", at_server=False,
          stages__1__resources=GPUS, stages__1__lora={"quantization": "nf4"}, stages__1__zeroStage=3),
    wrong("QLoRA in a loop of our own", "spec.stages[2].lora.quantization", "a ppo stage can't hold",
          stages__2=ppo(rewards=[{"function": "a:b"}], lora={"quantization": "nf4"}), at_server=False),
    wrong("a quantisation that isn't there", "spec.stages[1].lora.quantization", "nf4",
          stages__1__lora={"quantization": "int8"}),
    wrong("a window of no time", "spec.restarts.windowSeconds", "greater than or equal to 1",
          restarts={"windowSeconds": 0}),
    wrong("a token of more than a line", "spec.restartToken", "253", restartToken="x" * 254),
    wrong("a run folder in another claim", "spec.resumeFrom.uri", "must be in the claim of spec.storage",
          resumeFrom={"uri": "pvc://backup/old-0123abcd"}),
    wrong("a run folder in a claim with a longer name", "spec.resumeFrom.uri", "must be in the claim of spec.storage",
          resumeFrom={"uri": "pvc://models-old/old-0123abcd"}),
    wrong("a claim as a run folder", "spec.resumeFrom.uri", "pattern", resumeFrom={"uri": "pvc://models/"}),
    wrong("a run folder that climbs out", "spec.resumeFrom.uri", "pattern", resumeFrom={"uri": "pvc://models/../x"}),
    wrong("a run folder of nothing", "spec.resumeFrom", "equired", resumeFrom={}),
    wrong("a run folder with a long path", "spec.resumeFrom.uri", "384",
          resumeFrom={"uri": "pvc://models/" + "a" * 400}),
    wrong("no nodes", "spec.nodes", "greater than or equal to 1", nodes=0),
    wrong("a field that isn't there", "spec.stagse", "no such field", stagse=[], at_server=False),
    wrong("a gate without thresholds", f"{GATED}.gate", "need", stages__1__evaluation={"gate": "warn"}),
    wrong("thresholds without a gate", GATED, "thresholds",
          stages__1__evaluation={"thresholds": [{"metric": "loss", "max": 3}]}),
    wrong("a gate that isn't there", f"{GATED}.gate", "warn", stages__1__evaluation={"gate": "stop"}),
    wrong("a threshold of nothing", f"{GATED}.thresholds[0]", "must have min, max or atLeast",
          stages__1__evaluation=gated({"metric": "loss"})),
    wrong("a threshold that nothing meets", f"{GATED}.thresholds[0].min", "more than max",
          stages__1__evaluation=gated({"metric": "loss", "min": 3, "max": 2})),
    wrong("a metric of another kind", f"{GATED}.thresholds[0].metric", "tells no accuracy; it tells loss",
          stages__1__evaluation=gated({"metric": "accuracy", "min": 0.5}), at_server=False),
    wrong("a metric that is no name", f"{GATED}.thresholds[0].metric", "pattern",
          stages__1__evaluation=gated({"metric": "a b", "min": 0.5})),
    wrong("bits per byte of a fine-tune", f"{GATED}.thresholds[0].metric", "set evaluation.corpus",
          stages__1__evaluation=gated({"metric": "bitsPerByte", "max": 2}), at_server=False),
    wrong("bits per byte of no source", "spec.stages[0].evaluation.thresholds[0].metric", "bitsPerByte/books",
          stages__0__evaluation=gated({"metric": "bitsPerByte/news", "max": 2}), at_server=False),
    wrong("a loss of nothing", f"{GATED}.thresholds[0].metric", "validationFraction of 'chat' is 0",
          stages__1__sft__dataset__validationFraction=0, stages__1__evaluation=gated({"metric": "loss", "max": 2}),
          at_server=False),
    wrong("a task without its metric", f"{GATED}.thresholds[0].metric", "capitals/acc",
          stages__1__evaluation=gated({"metric": "capitals", "min": 1}, tasks=[TASK]), at_server=False),
    wrong("compared with a stage that isn't there", f"{GATED}.thresholds[0].atLeast.stage", "before this",
          stages__1__evaluation=gated({"metric": "loss", "atLeast": {"stage": "bsae"}}), at_server=False),
    wrong("compared with a later stage", "spec.stages[0].evaluation.thresholds[0].atLeast.stage", "comes later",
          stages__0__evaluation=gated({"metric": "loss", "atLeast": {"stage": "chat"}}), at_server=False),
    wrong("compared with what a stage doesn't tell", f"{GATED}.thresholds[0].atLeast.metric",
          "'base' tells no accuracy", at_server=False,
          stages__1__evaluation=gated({"metric": "loss", "atLeast": {"stage": "base", "metric": "accuracy"}})),
    wrong("compared on another text", f"{GATED}.thresholds[0].atLeast", "both to the same number",
          stages__1__evaluation=gated(FORGETS, corpus=True, tokens=1000), at_server=False),
    wrong("worse by less than nothing", f"{GATED}.thresholds[0].atLeast.delta", "greater than or equal",
          stages__1__evaluation=gated({"metric": "loss", "atLeast": {"stage": "base", "delta": -1}})),
    wrong("two tasks of one name", f"{GATED}.tasks", "capitals",
          stages__1__evaluation={"tasks": [TASK, TASK]}),
    wrong("a task with a figure's name", f"{GATED}.tasks", "held-out figure",
          stages__1__evaluation={"tasks": [{**TASK, "name": "loss"}]}, at_server=False),
    wrong("a task that climbs out", f"{GATED}.tasks[0].uri", "..",
          stages__1__evaluation={"tasks": [{**TASK, "uri": "pvc://corpus/../x.yaml"}]}, at_server=False),
    wrong("a task of a hub", f"{GATED}.tasks[0].uri", "pattern",
          stages__1__evaluation={"tasks": [{**TASK, "uri": "hf://mmlu"}]}),
    wrong("an empty prompt", f"{GATED}.prompts[0]", "at least 1", stages__1__evaluation={"prompts": [""]}),
    wrong("too many prompts", f"{GATED}.prompts", "16", stages__1__evaluation={"prompts": ["a"] * 17}),
    wrong("a prompt of a book", f"{GATED}.prompts[0]", "4096",
          stages__1__evaluation={"prompts": ["a" * 4097]}),
    wrong("prompts of a reward model", "spec.stages[2].evaluation", "make a language model",
          stages__2={**TASTE, "evaluation": {"prompts": ["a"]}}),
    wrong("the corpus of a model with a tokenizer of its own", f"{GATED}.corpus", "another tokenizer",
          stages__1__model={"uri": "pvc://models/x"}, stages__1__evaluation={"corpus": True}, at_server=False),
    wrong("a corpus that isn't there", "spec.stages[0].evaluation.corpus", "spec.data", at_server=False,
          model={"uri": "pvc://models/x"}, tokenizer=REMOVE, data=REMOVE,
          stages=[{**TRAINING["stages"][1], "evaluation": {"corpus": True}}]),
    wrong("the old field", "spec.stages[0].evaluateEverySteps", "no such field", stages__0__evaluateEverySteps=5,
          at_server=False),
    wrong("no storage", "spec.storage", "equired", storage=REMOVE),
)  # fmt: skip
