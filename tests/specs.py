"""Specs that are right, and every way to get one wrong: one table for pydantic and for the API server."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llm_operator.api.training import SHARED
from llm_operator.api.vllm_environment import DOORS

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
    wrong("a source that is no claim", "spec.data.sources[0].uri", "pvc://",
          data__sources__0__uri="https://example.com/books"),
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
    wrong("a model beyond the GPU's memory", "spec.stages[0].zeroStage", "use zeroStage 2",
          **LARGE, gpuMemory="24Gi", at_server=False),
    wrong("a model beyond these GPUs' memory", "spec.stages[0].zeroStage", "use zeroStage 3 on 32 GPUs",
          **LARGE, gpuMemory="4Gi", at_server=False),
    wrong("a memory that is no quantity", "spec.gpuMemory", "80", gpuMemory="80 GB"),
    wrong("a family that we don't have", "spec.model.architecture.family", "llama",
          model__architecture__family="transformer"),
    wrong("a warm-up as long as the run", "spec.stages[0].schedule.warmupSteps", "leaves none",
          stages__0__schedule={"warmupSteps": 100}, at_server=False),
    wrong("a warm-up longer than its tokens last", "spec.stages[0].schedule.warmupSteps", "none of the 10 steps",
          stages__0__schedule={"warmupSteps": 11}, at_server=False,
          stages__0__pretrain={"sequenceLength": 128, "tokens": 8 * 128 * 9 + 1}, stages__0__globalBatchSize=8),
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
    wrong("no storage", "spec.storage", "equired", storage=REMOVE),
)  # fmt: skip
LEGAL = {"name": "legal", "training": {"name": "bilingual", "stage": "legal"}}


def adapters(*given: dict[str, Any]) -> Spec:
    """A serving with them."""
    return changed(SERVING, adapters=list(given))


API_KEY = {"secretKeyRef": {"name": "keys", "key": "chat"}}
WRONG_SERVINGS = (
    Wrong("training and uri", changed(SERVING, model__uri="pvc://models/x"), "spec.model", "exactly one of"),
    Wrong("neither training nor uri", {"model": {}}, "spec.model", "exactly one of"),
    Wrong("an adapter twice", adapters(LEGAL, LEGAL), "spec.adapters", "legal"),
    Wrong("an adapter from nowhere", adapters({"name": "legal"}), "spec.adapters[0]", "exactly one of training, uri"),
    Wrong("an adapter from two places", adapters({**LEGAL, "uri": "pvc://models/legal"}), "spec.adapters[0]",
          "exactly one of training, uri"),
    Wrong("a rank beside the stage's", adapters({**LEGAL, "rank": 8}), "spec.adapters[0].rank", "leave it out"),
    Wrong("a rank beyond vLLM's", adapters({"name": "law", "uri": "pvc://models/law", "rank": 513}),
          "spec.adapters[0].rank", "less than or equal to 512"),
    Wrong("an adapter with the model's name", changed(adapters(LEGAL), servedModelName="legal"), "spec.adapters",
          "an adapter can't have the model's name"),
    Wrong("adapters past the list", changed(adapters(LEGAL), extraArguments=["--lora-modules", "x=/y"]),
          "spec.extraArguments", "take the place of spec.adapters", at_server=False),
    Wrong("more processes than GPUs", changed(SERVING, resources=GPUS, extraArguments=["--tensor-parallel-size=4"]),
          "spec.extraArguments", "is 4, and a pod has 8 GPUs", at_server=False),
    Wrong("an alias that is the name", changed(SERVING, servedModelName="chat", servedModelAliases=["chat"]),
          "spec.servedModelAliases", "is spec.servedModelName already"),
    Wrong("an alias twice", changed(SERVING, servedModelAliases=["a", "a"]), "spec.servedModelAliases", "leave one"),
    Wrong("an adapter with an alias", changed(adapters(LEGAL), servedModelAliases=["legal"]), "spec.adapters",
          "an adapter can't have the model's name"),
    Wrong("a name with a blank", changed(SERVING, servedModelName="my model"), "spec.servedModelName", "match"),
    Wrong("an unknown data type", changed(SERVING, dataType="fp16"), "spec.dataType", "bfloat16"),
    Wrong("a time that no Deployment takes", changed(SERVING, startupTimeoutSeconds=3_000_000_000),
          "spec.startupTimeoutSeconds", "86400"),
    Wrong("a name past the field", changed(SERVING, extraArguments=["--served-model-name", "chat-v1", "chat-v2"]),
          "spec.extraArguments", "spec.servedModelAliases"),
    Wrong("TLS in the pod", changed(SERVING, extraArguments=["--ssl_certfile=/tls.crt"]), "spec.extraArguments",
          "is given by spec.tls"),
    Wrong("certificates of clients", changed(SERVING, extraArguments=["--ssl-ca-certs=/ca.crt"]), "spec.extraArguments",
          "would keep the probes out"),
    Wrong("TLS of no Secret", changed(SERVING, tls={}), "spec.tls.secretName", "equired"),
    Wrong("TLS of a name that no Secret has", changed(SERVING, tls={"secretName": "A_b"}), "spec.tls.secretName",
          "match", at_server=False),
    Wrong("a rollout of nothing", changed(SERVING, strategy={"rollingUpdate": {"maxSurge": 0}}),
          "spec.strategy.rollingUpdate", "can't both be 0"),
    Wrong("surge of a Recreate", changed(SERVING, strategy={"type": "Recreate", "rollingUpdate": {}}),
          "spec.strategy.rollingUpdate", "leave it out"),
    Wrong("two chat templates", changed(SERVING, chatTemplate={"configMap": {"name": "a", "key": "b"}, "text": "{}"}),
          "spec.chatTemplate", "exactly one of"),
    Wrong("a file's name for a template", changed(SERVING, chatTemplate={"text": "plain.jinja"}),
          "spec.chatTemplate.text", "a Jinja template"),
    *(
        Wrong(name, changed(SERVING, pods={"env": [{"name": name, "value": "1"}]}), "spec.pods.env[0]", why)
        for name, why in DOORS.items()
    ),
    Wrong("two API keys", changed(SERVING, apiKey=API_KEY, pods={"env": [{"name": "VLLM_API_KEY", "value": "x"}]}),
          "spec.pods.env", "stands beside"),
    Wrong("an API key in the spec", changed(SERVING, apiKey={"value": "s3cret"}), "spec.apiKey", "secretKeyRef"),
    Wrong("an API key of no Secret", changed(SERVING, apiKey={"secretKeyRef": {"name": "a"}}),
          "spec.apiKey.secretKeyRef", "key"),
    Wrong("a namespace that is none", changed(SERVING, allowedNamespaces=["team-*"]), "spec.allowedNamespaces[0]",
          "match"),
    Wrong("negative replicas", changed(SERVING, replicas=-1), "spec.replicas", "greater than or equal to 0"),
)  # fmt: skip
RIGHT_SERVINGS = (
    SERVING,
    changed(adapters(LEGAL), servedModelName="chat"),
    changed(SERVING, resources=GPUS, extraArguments=["--tensor-parallel-size=4", "-pp", "2"]),
    adapters(LEGAL, {"name": "law", "uri": "pvc://models/law"}, {"name": "old", "uri": "pvc://models/old", "rank": 64}),
    changed(
        adapters(
            {"name": "acme/legal-v1.2", "uri": "pvc://models/law"}, {"name": "sql_lora", "uri": "pvc://models/sql"}
        ),
        servedModelName="Acme/Base-8B",
        servedModelAliases=["base", "gpt-4:latest"],
        dataType="half",
        strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        extraArguments=["--max-num-seqs=16", "-cc.x=1"],
        chatTemplate={"configMap": {"name": "templates", "key": "plain.jinja"}},
        cache={"persistentVolumeClaim": {"claimName": "kernels"}},
        apiKey=API_KEY | {"metricsWithoutKey": True},
        tls={"secretName": "chat-tls"},
        allowedNamespaces=["gateway", "*"],
    ),
    changed(SERVING, strategy={"type": "Recreate"}, chatTemplate={"text": "{{ messages }}"}),
)


def right_trainings() -> Iterator[tuple[str, Spec]]:
    """Specs that the rules must let through."""
    yield "minimal", TRAINING
    yield "expert parallelism", changed(TRAINING, **MIXTURE, stages__0__pretrain__expertParallel=2)
    yield "restarts", changed(TRAINING, restarts={"own": 0, "windowSeconds": 60}, restartToken="2026-01-01T00:00:00Z")
    yield "a run folder", changed(TRAINING, resumeFrom={"uri": "pvc://models/bilingual-0123abcd"})
    yield "a restored run folder", changed(TRAINING, resumeFrom={"uri": "pvc://models/restored/2026-01-01/a.b_c-0123"})
    yield "tokens", changed(TRAINING, stages__0__pretrain__steps=REMOVE, stages__0__pretrain__tokens=10_000)
    yield "GPUs", changed(TRAINING, resources=GPUS, **{
        f"stages__{i}__globalBatchSize": 32 for i in range(2)
    })  # fmt: skip
    yield (
        "an existing model",
        changed(
            TRAINING, model={"uri": "pvc://models/x"}, tokenizer=REMOVE, data=REMOVE, stages=[TRAINING["stages"][1]]
        ),
    )
    yield (
        "the whole chain",
        changed(
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
    )
    yield (
        "a whole model after an adapter",
        changed(TRAINING, stages__1__lora={}, stages__2={"name": "full", "sft": PAIRS}),
    )
    yield (
        "an adapter on a merged one",
        changed(TRAINING, stages__1__lora={"merge": True}, stages__2={"name": "l", "sft": PAIRS, "lora": {}}),
    )
    yield (
        "an adapter that goes on with another",
        changed(TRAINING, stages__1__lora={}, stages__2={"name": "l", "dpo": PAIRS, "lora": {"rank": 4}}),
    )
    yield (
        "functions of the user's",
        changed(
            TRAINING,
            model__architecture__function="mine.models:make_model",
            stages__0__pretrain__lossFunction="mine.losses:loss",
            stages__0__optimizer={"function": "torch.optim:NAdam", "learningRate": 1e-3, "beta1": 0.8},
            stages__1__sft__lossFunction="mine.losses:loss",
            stages__2=ppo(rewards=[{"function": "a:b"}], criticOptimizer={"function": "mine:make_optimizer"}),
        ),
    )
    yield "Muon", changed(TRAINING, stages__0__optimizer={"type": "muon", "muonLearningRate": 0.01})
    yield (
        "what has a rule and is right",
        changed(
            TRAINING,
            stages__0__microBatchSize=2,
            stages__2={"name": "d", "dpo": {**PAIRS, "lossType": ["sigmoid", "sft"], "lossWeights": [1, 0.5]}},
            stages__3={"name": "k", "kto": PAIRS, "microBatchSize": 4},
        ),
    )
    yield "a stage's model by name", changed(TRAINING, stages__1__model={"stage": "base"})
