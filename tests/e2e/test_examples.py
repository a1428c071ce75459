"""Every example, applied on two real nodes as a user applies it; the whole chain with smaller figures."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo.chat import ask, post

from tests.e2e.specs import SERVING_RESOURCES
from tests.e2e.text import write_text
from tests.e2e.user import Manifest, Seen, User, condition, stage
from tests.specs import changed

EXAMPLES = Path(__file__).parents[2] / "examples"
FAMILIES = sorted((EXAMPLES / "families").glob("*.yaml"))
STAGES = [
    EXAMPLES / "stages" / f"{name}.yaml"
    for name in ("pretrain", "sft", "reward-model", "dpo", "kto", "ppo", "grpo", "lora")
]
COPIES = {"pretrain": "base", "sft": "chat", "reward-model": "taste"}  # from which later examples start
RESULTS = {"reward-model": "rewardModel", "lora": "adapter"}  # of the others it is a model
FIGURES = {
    "reward-model": "accuracy", "dpo": "margin", "kto": "margin", "ppo": "reward", "grpo": "reward",
}  # fmt: skip

# The whole chain on a smaller model and fewer steps.
SMALLER: dict[str, Any] = {
    "model__architecture__config__hidden_size": 64,
    "model__architecture__config__intermediate_size": 160,
    "model__architecture__config__num_hidden_layers": 2,
    "model__architecture__config__num_attention_heads": 2,
    "model__architecture__config__num_key_value_heads": 1,
    "tokenizer__train__vocabularySize": 1024,
    "stages__0__pretrain__steps": 40,
    "stages__0__pretrain__compile": True,  # as the layers of a long stage are
    "stages__0__pretrain__sequenceLength": 64,
    "stages__0__evaluation__everySteps": 40,
    **{f"stages__{number}__schedule__warmupSteps": 1 for number in (1, 2, 3)},  # the stages are few steps long
}
CHAIN = {
    "base": "model", "chat": "model", "taste": "rewardModel", "direct": "model", "aligned": "model",
    "japanese": "adapter",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def text(user: User) -> None:
    write_text(user.folder("corpus"))


def succeeded(user: User, name: str, seconds: float = 600) -> Manifest:
    """The status at a training's good end, after which each of its stages has run on both nodes."""
    status = user.until("ends", "llmtraining", name, lambda s: s["phase"] in ("Succeeded", "Failed"), seconds)
    assert status["phase"] == "Succeeded", condition(status, "Failed")
    for one in status["stages"][1:]:
        job = one["attempts"][-1]["job"]
        query = ("get", "pods", "-l", f"batch.kubernetes.io/job-name={job}", "-o", "jsonpath={.items[*].spec.nodeName}")
        assert sorted(user.kubectl.run(*query).split()) == ["node-a", "node-b"], one["name"]
        assert one["progress"]["worldSize"] == 2
        assert one["progress"]["step"] == one["progress"]["steps"] > 0
    return status


def serves_adapters(status: Manifest) -> bool:
    states = [adapter["state"] for adapter in status.get("adapters", ())]
    return condition(status, "Ready").get("status") == "True" and bool(states) and set(states) == {"Serving"}


def is_finite(figure: str) -> bool:
    return math.isfinite(float(figure))


def model_folder(user: User, uri: str) -> Path:
    return user.folder("models") / uri.removeprefix("pvc://models/")


@pytest.mark.release
@pytest.mark.parametrize("file", STAGES, ids=lambda file: str(file.stem))
def test_a_stage(user: User, file: Path, record_property: Seen) -> None:
    user.kubectl.run("apply", "-f", str(file))
    made = succeeded(user, file.stem)["stages"][1]
    assert made["result"]["kind"] == RESULTS.get(file.stem, "model")
    figure = FIGURES.get(file.stem, "loss")
    record_property(figure, made["progress"]["evaluation"][figure])
    assert is_finite(made["progress"]["evaluation"][figure])
    if copy := COPIES.get(file.stem):
        shutil.copytree(model_folder(user, made["result"]["uri"]), user.folder("models") / copy)


@pytest.mark.release
@pytest.mark.parametrize("index", range(len(FAMILIES)), ids=[file.stem for file in FAMILIES])
def test_a_family(user: User, index: int, record_property: Seen) -> None:
    for file in FAMILIES[index : index + 2]:  # while one's pods start or end, there is time for the next one's
        user.kubectl.run("apply", "-f", str(file))
    made = succeeded(user, FAMILIES[index].stem)["stages"][1]
    assert made["result"]["kind"] == "model"
    record_property("held-out bits per byte", made["progress"]["evaluation"]["bitsPerByte"])
    assert is_finite(made["progress"]["loss"])
    assert is_finite(made["progress"]["evaluation"]["bitsPerByte"])


@pytest.mark.timeout(1800)  # seven stages and a serving
def test_the_whole_chain(user: User, record_property: Seen) -> None:
    training, serving = yaml.safe_load_all((EXAMPLES / "whole-chain.yaml").read_text())
    user.apply("LLMTraining", "whole-chain", changed(training["spec"], **SMALLER))
    status = succeeded(user, "whole-chain", 1200)
    assert {name: stage(status, name)["result"]["kind"] for name in CHAIN} == CHAIN
    assert "LayersCompiled" in [notice["reason"] for notice in stage(status, "base")["notices"]]
    adapter, chat = (stage(status, name)["result"] for name in ("japanese", "chat"))
    assert adapter["base"] == chat["uri"]
    reward = stage(status, "aligned")["progress"]["evaluation"]["reward"]
    record_property("held-out reward", reward)
    assert is_finite(reward)

    user.apply("LLMServing", "whole-chain", changed(serving["spec"], resources=SERVING_RESOURCES))
    user.until("serves", "llmserving", "whole-chain", serves_adapters, 420)
    with user.kubectl.forward("service/whole-chain-serving", 80) as url:
        answer = ask(url, "japanese", "lambdaの第1部は何ですか？", max_tokens=16)
        assert answer.finish_reason in ("stop", "length")
        body = {"prompt": "lambda", "max_tokens": 4, "temperature": 0, "logprobs": 0}
        base, adapted = (
            post(f"{url}/v1/completions", {**body, "model": name})["choices"][0]["logprobs"]["token_logprobs"]
            for name in ("whole-chain", "japanese")
        )
        assert base != adapted, "the adapter changes nothing"
