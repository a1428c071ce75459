"""What is known of a model before a pod starts: whether it fits its GPUs, and whether vLLM loads adapters beside it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from llm_operator.api.families import CLASSES, FAMILIES
from llm_operator.kube.plan import Manifest
from tests.specs import LEGAL, SERVING, Spec, adapters, changed
from tests.unit.serving import scenes
from tests.unit.serving.scenes import condition, run_pods, settle, training, with_adapter
from tests.unit.world import START

GPUS = {"limits": {"nvidia.com/gpu": 8}}
WHOLE = changed(adapters(LEGAL), model__training__stage="chat")


def of_family(source: Manifest, family: str, **config: Any) -> Manifest:
    source["spec"]["model"] = {"architecture": {"family": family, "config": config}}
    return source


def test_every_family_has_its_class() -> None:
    assert CLASSES.keys() > FAMILIES.keys()
    assert {family: MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family] for family in CLASSES} == CLASSES


@pytest.mark.parametrize(
    ("source", "spec", "says"),
    [
        (
            of_family(training("one"), "gpt2", n_embd=384, n_head=12),
            changed(SERVING, resources=GPUS),
            "spec.resources.limits[nvidia.com/gpu]: 12 heads are not divisible by the 8 GPUs; use one of 1, 2, 3, 4, 6",
        ),
        (
            of_family(training("one"), "llama", num_attention_heads=12),
            changed(SERVING, resources=GPUS, extraArguments=["--tensor-parallel-size=8"]),
            "12 heads are not divisible by the 8 GPUs",
        ),
        (
            of_family(training("one"), "gpt2", n_positions=128),
            changed(SERVING, maxModelLength=129),
            "spec.maxModelLength: 129 is above n_positions 128 of the model",
        ),
        (
            of_family(training("one"), "llama", max_position_embeddings=128),
            changed(SERVING, maxModelLength=4096),
            "is above max_position_embeddings 128",
        ),
        (
            of_family(
                training("one"),
                "llama",
                max_position_embeddings=128,
                rope_parameters={"rope_type": "dynamic", "factor": 2.0},
            ),
            changed(SERVING, maxModelLength=257),
            "257 is above max_position_embeddings 128 times the rope factor 2",
        ),
        (
            of_family(
                training("one"),
                "llama",
                max_position_embeddings=128,
                rope_parameters={"rope_type": "yarn", "factor": 2.0},
            ),
            changed(SERVING, maxModelLength=129),
            "is above max_position_embeddings 128 of the model",
        ),
    ],
)
def test_what_can_not_start_is_refused_before_a_pod(source: Manifest, spec: Spec, says: str) -> None:
    world = scenes.scene(spec)
    assert not scenes.step(world, source).apply
    assert world.owner["status"]["phase"] == "Invalid"
    assert condition(world, "ModelAvailable")["reason"] == "InvalidSpec"
    assert says in condition(world, "ModelAvailable")["message"]


@pytest.mark.parametrize(
    ("source", "spec"),
    [
        (
            of_family(training("one"), "gpt2", n_embd=384, n_head=12),
            changed(SERVING, resources=GPUS, extraArguments=["--pipeline-parallel-size=2"]),
        ),
        (of_family(training("one"), "gpt2", n_embd=384, n_head=12), SERVING),
        (of_family(training("one"), "llama", num_attention_heads=64), changed(SERVING, resources=GPUS)),
        (of_family(training("one"), "gpt2", n_positions=128), changed(SERVING, maxModelLength=128)),
        (of_family(training("one"), "mamba2", n_groups=1), changed(SERVING, maxModelLength=10**6)),
        (
            of_family(training("one"), "gpt2", n_positions=128),
            changed(SERVING, maxModelLength=256,
                    pods={"env": [{"name": "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "value": "1"}]}),
        ),
        (
            of_family(training("one"), "llama", max_position_embeddings=128,
                      rope_parameters={"rope_type": "linear", "factor": 2.0}),
            changed(SERVING, maxModelLength=256),
        ),
        (
            of_family(training("one"), "llama", max_position_embeddings=128, rope_parameters={"factor": 4}),
            changed(SERVING, maxModelLength=512),
        ),
        (
            of_family(training("one"), "llama", max_position_embeddings=128),
            changed(SERVING, maxModelLength=256, extraArguments=["--hf-overrides.max_position_embeddings=256"]),
        ),
        (
            of_family(training("one"), "gpt2", n_embd=384, n_head=12),
            changed(SERVING, resources=GPUS, extraArguments=["--hf_overrides", '{"n_head": 8}']),
        ),
    ],
    ids=["4 of 8 GPUs", "CPU", "64 heads", "all positions", "no positions", "the user insists", "linear rope",
         "no rope type", "other positions", "other heads"],
)  # fmt: skip
def test_what_can_start_is_started(source: Manifest, spec: Spec) -> None:
    world = scenes.scene(spec)
    assert scenes.step(world, source).apply, condition(world, "ModelAvailable")["message"]


@pytest.mark.parametrize(
    ("source", "spec", "says"),
    [
        (of_family(with_adapter(), "gpt2"), WHOLE, "vLLM loads no adapters beside a gpt2"),
        (of_family(with_adapter("law"), "mamba2", n_groups=1), WHOLE, "vLLM loads no adapters beside a mamba2"),
        (of_family(with_adapter(), "mixtral"), WHOLE, "take GPUs"),
        (of_family(with_adapter(), "deepseek_v3"), WHOLE, "take GPUs"),
        (with_adapter(experts=True), WHOLE, "adapts the experts"),
        (
            of_family(with_adapter("law"), "gpt2"),
            changed(WHOLE, adapters=[{"name": "law", "uri": "pvc://models/law"}]),
            "vLLM loads no adapters beside a gpt2",
        ),
    ],
)
def test_an_adapter_never_takes_its_base_down(source: Manifest, spec: Spec, says: str) -> None:
    """Told before its stage has run; the base is served as if no adapter were asked for."""
    world = scenes.scene(spec)
    plan = scenes.step(world, source)
    (container,) = next(m for m in plan.apply if m["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--enable-lora" not in container["args"]
    (told,) = world.owner["status"]["adapters"]
    assert (told["state"], told["reason"]) == ("Refused", "AdapterNotSupported")
    assert says in told["message"]
    assert "lora.merge: true" in told["message"]


def test_an_adapter_beside_a_mixture_goes_where_its_gpus_do() -> None:
    """The case adapter-on-mixture-on-cpu, of what serves already."""
    world, source = scenes.scene(changed(WHOLE, resources=GPU)), of_family(with_adapter("law"), "mixtral")
    settle(world, source)
    run_pods(world)
    settle(world, source)
    assert world.owner["status"]["adapters"][0]["state"] == "Serving"
    world.owner["spec"] = WHOLE
    [made] = scenes.step(world, source).apply
    [container] = made["spec"]["template"]["spec"]["containers"]
    assert "--enable-lora" not in container["args"]
    assert "nvidia.com/gpu" not in str(container["resources"])
    assert world.owner["status"]["adapters"][0]["state"] == "Refused"


GPT2 = {"n_embd": 384, "n_head": 12, "n_layer": 2}
GPU, FOUR = ({"limits": {"nvidia.com/gpu": count}} for count in (1, 4))
KERNELS = {"persistentVolumeClaim": {"claimName": "kernels"}}


@pytest.mark.parametrize("strategy", [{}, {"type": "Recreate"}])
@pytest.mark.parametrize(
    ("source", "served", "edited", "reason"),
    [
        (
            of_family(training("one"), "gpt2", **GPT2),
            changed(SERVING, resources=FOUR),
            changed(SERVING, resources=GPUS),
            "InvalidSpec",
        ),
        (of_family(training("one"), "mamba"), changed(SERVING, resources=GPU), SERVING, "FamilyNotServed"),
        (training("one"), SERVING, changed(SERVING, cache=KERNELS), "PersistentVolumeClaimNotFound"),
        (None, SERVING, changed(SERVING, cache=KERNELS), "PersistentVolumeClaimNotFound"),
    ],
    ids=["heads-not-divisible", "a family that needs GPUs", "cache", "cache, and no training"],
)
def test_what_can_not_start_never_replaces_what_serves(
    source: Manifest | None, served: Spec, edited: Spec, reason: str, strategy: Spec
) -> None:
    """The Deployment keeps what was applied last and follows replicas alone, until the spec is right again."""
    world, before = scenes.scene(served), source or training("one")
    settle(world, before)
    run_pods(world)
    settle(world, before)
    kept = copy.deepcopy(world.objects["Deployment", "chat-serving"]["spec"])
    world.owner["spec"] = changed(edited, strategy=strategy)
    assert not scenes.step(world, source).apply
    assert condition(world, "ModelAvailable")["reason"] == reason
    told = condition(world, "Progressing")
    assert (told["status"], told["reason"]) == ("False", "RolloutStuck")
    assert told["message"] in condition(world, "ModelAvailable")["message"]
    assert (condition(world, "Ready")["status"], world.owner["status"]["updatedReplicas"]) == ("True", 1)
    assert world.owner["status"]["phase"] == ("Invalid" if reason == "InvalidSpec" else "RollingOut"), "not Ready"
    world.owner["spec"] = changed(edited, strategy=strategy, replicas=3)
    [made] = scenes.step(world, source).apply
    assert made["spec"] == {**kept, "replicas": 3}
    assert scenes.step(world, source, START + 3600).empty
    del world.objects["Deployment", "chat-serving"]
    assert not scenes.step(world, source).apply, "nor does it make pods that can't answer"
    world.owner["spec"] = changed(served, replicas=3)
    [made] = scenes.step(world, before).apply
    assert made["spec"]["template"] == kept["template"]
