"""What data preparation is told to fetch, and that nobody else has a credential or a way out."""

from __future__ import annotations

from typing import Any

from llm_operator.api.validation import load_training
from llm_operator.training.manifests import children
from llm_operator.training.stages import planned_stages, remote_inputs, stage_config
from tests.right_trainings import RIGHT_TRAININGS
from tests.unit.world import NETWORK

SPEC = load_training(RIGHT_TRAININGS["from a hub, a bucket and a server"])
TRAINING = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMTraining",
            "metadata": {"name": "bilingual", "namespace": "team", "uid": "0" * 8}}  # fmt: skip


def made(index: int) -> dict[str, Any]:
    """The children of a stage by their kinds."""
    stage = planned_stages(SPEC)[index]
    results = {"base": "pvc://models/run/stages/base/results/step-1"}
    config = stage_config(TRAINING, SPEC, stage, 1, results)
    return {child["kind"]: child for child in children(TRAINING, SPEC, stage, config, "image", network=NETWORK)}


def test_each_uri_with_its_field_and_its_use() -> None:
    assert [(each.field, each.uri, each.use) for each in remote_inputs(SPEC)] == [
        ("spec.model.uri", "hf://team/model@v1.0", "model"),
        ("spec.tokenizer.uri", "hf://team/model/tokenizer", "tokenizer"),
        ("spec.data.sources[0].uri", "s3://corpora/ja/**/*.jsonl.gz", "data"),
        ("spec.stages[1].sft.dataset.uri", "https://example.com:8443/chat.jsonl?version=2", "data"),
    ]


def test_only_data_preparation_mounts_the_secrets() -> None:
    (container,) = made(0)["Job"]["spec"]["template"]["spec"]["containers"]
    volumes = made(0)["Job"]["spec"]["template"]["spec"]["volumes"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"] if "cred" in mount["name"]}
    assert mounted == {f"credential-{index}": f"/credentials/{index}" for index in range(3)}
    secrets = [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]
    assert secrets == ["hub", "store", "web"]
    config = made(0)["ConfigMap"]["data"]["stage.json"]
    assert '"secretName": "store"' in config
    for index in (1, 2):
        assert not [v for v in made(index)["Job"]["spec"]["template"]["spec"]["volumes"] if "secret" in v]
        assert "credentials" not in made(index)["ConfigMap"]["data"]["stage.json"]


def test_only_data_preparation_reaches_what_is_outside() -> None:
    anywhere = {"ports": [{"protocol": "TCP"}]}
    assert anywhere in made(0)["NetworkPolicy"]["spec"]["egress"]
    assert anywhere not in made(1)["NetworkPolicy"]["spec"]["egress"]
