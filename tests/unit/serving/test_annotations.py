"""What pods are told to serve is read from annotations, which anybody may write: no value ends a pass."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llm_operator.api.serving import LLMServingStatus, ServedAdapter, ServedResult
from llm_operator.kube.plan import Manifest
from llm_operator.serving.annotations import (
    ADAPTERS,
    MODEL_DIGEST,
    MODEL_STEP,
    MODEL_URI,
    adapters_in,
    model_in,
    served,
)
from tests.specs import SERVING, changed
from tests.unit.serving import scenes

MODEL = ServedResult(uri="pvc://models/a", digest="sha256:a", step=7)
ADAPTER = ServedAdapter(name="legal", uri="pvc://models/b", digest="sha256:b", step=8, rank=16)


def test_what_was_written_is_read() -> None:
    written = served(MODEL, [ADAPTER])
    assert model_in(written) == MODEL
    assert adapters_in(written) == [ADAPTER]


@pytest.mark.parametrize("step", ["", "newest", "-1", "1.5", "٣" * 30, "9" * 40])
def test_a_step_that_is_no_number_is_none(step: str) -> None:
    found = model_in({MODEL_URI: "pvc://models/a", MODEL_STEP: step})
    assert found == ServedResult(uri="pvc://models/a")


@pytest.mark.parametrize("text", ["", "{", "7", "null", '["x"]', '[{"name": "a"}]', "[" * 100_000])
def test_adapters_that_can_not_be_read_are_none(text: str) -> None:
    assert adapters_in({ADAPTERS: text}) == []


NAMES = st.sampled_from([MODEL_URI, MODEL_DIGEST, MODEL_STEP, ADAPTERS])


@given(st.dictionaries(NAMES, st.text()))
def test_no_annotation_ends_a_pass(found: dict[str, str]) -> None:
    LLMServingStatus(model=model_in(found))
    adapters_in(found)


@pytest.mark.parametrize("uri", ["s3://bucket/model", "pvc://", "pvc://models/../other", "", "nonsense"])
@pytest.mark.parametrize("follows", ["model", "adapter"])
def test_a_uri_that_can_not_be_mounted_is_told(uri: str, follows: str) -> None:
    """In the status of a training, by hand or of another version."""
    spec: Any = SERVING
    source: Manifest = scenes.training("one")
    if follows == "adapter":
        legal = {"name": "legal", "training": {"name": "bilingual", "stage": "legal"}}
        spec = changed(SERVING, adapters=[legal], model__training__stage="chat")
        source = scenes.with_adapter("law")
    world = scenes.scene(spec)
    source["status"]["stages"][-1]["result"]["uri"] = uri
    scenes.settle(world, source)
    condition = "ModelAvailable" if follows == "model" else "AdaptersAvailable"
    told = next(one for one in world.owner["status"]["conditions"] if one["type"] == condition)
    assert told["reason"] == "PersistentVolumeClaimNotFound"
    assert f"{uri!r}" in told["message"]
    assert bool(world.of("Deployment")) is (follows == "adapter"), "an adapter never takes its base down"
