"""What may be set of pods, and what is said of what may not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llm_operator.api.pods import PodSettings, StagePods
from llm_operator.api.resolve import data_resources_of, pods_of
from llm_operator.api.resources import Resources
from llm_operator.api.validation import InvalidSpecError, load_serving, load_training
from tests.pod_cases import (
    ALL_PODS,
    RIGHT_PODS,
    RIGHT_SERVING_PODS,
    STAGE_PODS,
    WRONG_PODS,
    WRONG_SERVING_PODS,
    with_pods,
)
from tests.specs import GPUS, TRAINING, Spec, Wrong, changed


def test_the_cases_have_every_field() -> None:
    for model, case in ((StagePods, STAGE_PODS), (PodSettings, ALL_PODS)):
        assert {field.alias for field in model.model_fields.values()} == set(case)


@pytest.mark.parametrize("case", [*WRONG_PODS, *WRONG_SERVING_PODS], ids=lambda case: case.name)
def test_wrong_pods_are_refused_by_their_field(case: Wrong) -> None:
    load = load_training if "stages" in case.spec else load_serving
    with pytest.raises(InvalidSpecError) as refused:
        load(case.spec)
    found = [problem for problem in refused.value.problems if case.path in problem and case.says in problem]
    assert len(found) == 1, f"{case.path} … {case.says} is not told once but: {refused.value}"


@pytest.mark.parametrize("spec", RIGHT_PODS.values(), ids=RIGHT_PODS)
def test_right_pods_of_a_training(spec: Spec) -> None:
    load_training(spec)


@pytest.mark.parametrize("spec", RIGHT_SERVING_PODS.values(), ids=RIGHT_SERVING_PODS)
def test_right_pods_of_a_serving(spec: Spec) -> None:
    load_serving(spec)


def test_the_page_about_pods_is_right() -> None:
    page = (Path(__file__).parents[3] / "docs" / "howto" / "pods.md").read_text()
    load_training(yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["spec"])


def test_what_a_stage_sets_takes_the_place_of_the_trainings() -> None:
    spec = load_training(
        changed(
            with_pods({"nodeSelector": {"pool": "gpu"}, "env": [{"name": "A", "value": "1"}], "shmSize": "1Gi"}),
            stages__1__pods={"nodeSelector": {"pool": "large"}, "env": []},
            prepareData={"pods": {"nodeSelector": {}}},
        )
    )
    base, chat, data = (pods_of(spec, stage) for stage in (*spec.stages, None))
    assert base == spec.pods
    assert (chat.node_selector, chat.env, chat.shm_size) == ({"pool": "large"}, [], "1Gi")
    assert (data.node_selector, data.env, data.shm_size) == ({}, spec.pods.env, "1Gi")


def test_data_preparation_takes_no_device() -> None:
    claims = [{"name": "gpus", "resourceClaimTemplateName": "gpus"}]
    limits = {**GPUS["limits"], "rdma/hca": 8, "cpu": "96", "hugepages-2Mi": "1Gi"}
    spec = load_training(
        changed(
            with_pods({"resourceClaims": claims}),
            resources={"limits": limits, "requests": {"cpu": "48"}},
            stages__0__globalBatchSize=16,
            stages__1__globalBatchSize=16,
        )
    )
    own = Resources(limits={"cpu": "96", "hugepages-2Mi": "1Gi"}, requests={"cpu": "48"})
    assert data_resources_of(spec) == own
    assert pods_of(spec, None).resource_claims == []
    assert len(pods_of(spec, spec.stages[0]).resource_claims) == 1


def test_data_preparation_has_resources_of_its_own() -> None:
    spec = load_training(
        changed(
            TRAINING,
            resources={"limits": {"cpu": "96"}},
            prepareData={
                "resources": {"requests": {"cpu": "4"}},
                "pods": {"resourceClaims": [{"name": "net", "resourceClaimName": "net"}]},
            },
        )
    )
    assert data_resources_of(spec) == Resources(requests={"cpu": "4"})
    assert [claim.name for claim in pods_of(spec, None).resource_claims] == ["net"]
