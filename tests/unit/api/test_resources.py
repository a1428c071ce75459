"""What a pod asks for, and which of it are GPUs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from llm_operator.api.resources import DEFAULT_DEVICES, Devices, Resources
from llm_operator.api.validation import InvalidSpecError, load_serving, load_training
from llm_operator.training.stages import planned_stages
from tests.quantity_cases import DEVICE_CASES, POD_CASES, WRONG_QUANTITIES, Case
from tests.specs import SERVING, TRAINING, Spec, changed

EXISTING = {
    "storage": TRAINING["storage"],
    "model": {"uri": "pvc://models/base"},
    "stages": [TRAINING["stages"][1]],
}
PLACES: dict[str, tuple[Callable[..., Any], Spec, str]] = {
    "resources": (load_training, EXISTING, "spec.resources"),
    "stages__0__resources": (load_training, EXISTING, "spec.stages[0].resources"),
    "serving": (load_serving, SERVING, "spec.resources"),
}


def problems(place: str, resources: Spec, devices: Devices = DEFAULT_DEVICES) -> str:
    load, spec, _ = PLACES[place]
    try:
        load(changed(spec, **{"resources" if place == "serving" else place: resources}), devices)
    except InvalidSpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", POD_CASES + DEVICE_CASES, ids=lambda case: case.name)
def test_resources_are_judged_everywhere(case: Case, place: str) -> None:
    said = problems(place, case.resources)
    path = PLACES[place][2]
    if case.says:
        assert f"{path}.{case.field}: " in said, said
        assert case.says in said, said
    else:
        assert path not in said, said


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("value", "says"), WRONG_QUANTITIES, ids=repr)
def test_a_wrong_quantity_is_named(value: object, says: str, place: str) -> None:
    said = problems(place, {"limits": {"memory": value}})
    assert said.startswith(f"{PLACES[place][2]}.limits.memory: ")
    assert says in said, said


@pytest.mark.parametrize(("value", "says"), WRONG_QUANTITIES, ids=repr)
def test_a_wrong_memory_of_a_gpu_is_named(value: object, says: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"^spec\.gpuMemory: ") as refused:
        load_training(changed(TRAINING, gpuMemory=value))
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["nvidia.com/gpu", "nvidia.com/gpu.shared", "amd.com/gpu"])
def test_processes_follow_from_gpus_of_any_name(name: str) -> None:
    batch = {"stages__0__globalBatchSize": 16}
    spec = load_training(changed(EXISTING, nodes=2, resources={"limits": {name: "8e0", "rdma/hca": 8}}, **batch))
    data, chat = planned_stages(spec)
    assert (chat.processes_per_node, chat.device) == (8, "cuda")
    assert (data.processes_per_node, data.device, data.resources.limits) == (1, "cpu", {})


def test_data_preparation_keeps_what_is_native() -> None:
    native = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi"}
    asked = Resources(limits={**native, "nvidia.com/gpu": 1, "rdma/hca": 1}, requests={"nvidia.com/gpu": 1})
    assert asked.native() == Resources(limits=native)


def test_a_device_of_the_settings() -> None:
    devices = Devices(("gpu.example.com/*",), ("card.example.com/x",))
    asked = {"limits": {"gpu.example.com/big": 2, "card.example.com/x": 1}}
    assert problems("serving", asked, devices) == ""
    assert load_serving(changed(SERVING, resources=asked), devices).resources.gpus == 2
    said = problems("serving", {"limits": {"nvidia.com/gpu": 1}}, devices)
    assert "neither a GPU (gpu.example.com/*) nor another device that the operator knows (card.example.com/x)" in said


def test_messages_name_the_gpus_that_are_meant() -> None:
    assert Resources(limits={"amd.com/gpu": 1}).gpu_resource == "amd.com/gpu"
    assert Resources().gpu_resource == "nvidia.com/gpu"


def test_null_is_nothing() -> None:
    """The API server drops it."""
    assert Resources.model_validate({"limits": {"cpu": None, "memory": 1}}).limits == {"memory": "1"}


@pytest.mark.parametrize(
    ("limits", "requests", "cpus"),
    [
        ({"cpu": "4"}, {"cpu": "1"}, 4),
        ({}, {"cpu": "100m"}, Fraction(1, 10)),
        ({"cpu": 1.5}, {}, Fraction(3, 2)),
        ({"memory": "1Gi"}, {}, None),
    ],
)
def test_cpus_of_a_pod(limits: Spec, requests: Spec, cpus: Fraction | None) -> None:
    assert Resources(limits=limits, requests=requests).cpus == cpus


@pytest.mark.parametrize(
    ("field", "value"), [("nodes", "2"), ("nodes", True), ("nodes", 1.5), ("suspend", "yes"), ("suspend", 1)]
)
def test_types_are_those_of_the_crd(field: str, value: object) -> None:
    with pytest.raises(InvalidSpecError, match=rf"^spec\.{field}: "):
        load_training(changed(TRAINING, **{field: value}))


def test_a_whole_number_may_be_a_float() -> None:
    spec = load_training({**TRAINING, "nodes": 2.0, "stages": [{"name": "a", "pretrain": {
        "sequenceLength": 128, "tokens": 20e9}}]})  # fmt: skip
    assert spec.stages[0].pretrain
    assert spec.stages[0].pretrain.tokens == 20_000_000_000
