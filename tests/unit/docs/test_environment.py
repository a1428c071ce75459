"""The page on variables has those that pods get and that our programs read, and no other."""

from __future__ import annotations

import re

from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.serving.manifests import environment as serving_environment
from llm_operator.training.manifests import children
from llm_operator.training.stages import planned_stages, stage_config
from tests.pages import DOCS, REPOSITORY
from tests.specs import API_KEY, SERVING, TRAINING, changed
from tests.unit.world import custom_resource

PAGE = (DOCS / "reference/environment.md").read_text()
NAMED = set(re.findall(r"`([A-Z][A-Z_]+)`", PAGE)) - {"WARN", "IB"}
SOURCES = "".join(
    file.read_text()
    for room in ("operator", "trainer_image", "kubectl_plugin")
    for file in (REPOSITORY / room).rglob("*.py")
)  # fmt: skip
OURS = re.compile(r'"(LLM_[A-Z_]*[A-Z])"')
MADE = {"LLM_SERVER_STARTUP_SECONDS", "LLM_SERVER_STALL_SECONDS"}  # of parts, in llm_server/launch.py


def of_trainings() -> set[str]:
    found = set()
    gpus = {"resources": {"limits": {"nvidia.com/gpu": 8, "rdma/hca": 8}}}
    for spec in (TRAINING, {**TRAINING, **gpus}, {**TRAINING, "nodes": 1}):
        loaded = LLMTrainingSpec.model_validate(spec)
        training = custom_resource("LLMTraining", "chat", spec)
        for stage in planned_stages(loaded)[:2]:
            made = children(training, loaded, stage, stage_config(training, loaded, stage, 1, {}), "trainer:1")
            (job,) = (one for one in made if one["kind"] == "Job")
            (container,) = job["spec"]["template"]["spec"]["containers"]
            found |= {variable["name"] for variable in container["env"]}
    return found


def of_servings() -> set[str]:
    found = {"VLLM_API_KEY", "LLM_SERVER_DIGESTS"}
    for limits in ({"nvidia.com/gpu": 1}, {"cpu": "4"}):
        spec = changed(SERVING, apiKey={**API_KEY, "metricsWithoutKey": True}, resources={"limits": limits})
        for launcher in (True, False):
            found |= set(serving_environment(LLMServingSpec.model_validate(spec), launcher=launcher))
    return found


def test_what_pods_get_is_told() -> None:
    assert of_trainings() | of_servings() <= NAMED


def test_what_our_programs_read_is_told() -> None:
    assert set(OURS.findall(SOURCES)) | MADE <= NAMED


def test_nothing_else_is_told() -> None:
    unknown = {name for name in NAMED if f'"{name}"' not in SOURCES} - MADE
    assert not unknown - {"RANK", "NO_COLOR"}
