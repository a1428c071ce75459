"""A stage on two processes by a loss or an optimizer of the user's: the same as ours where it is the same."""

from __future__ import annotations

import importlib
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_trainer.config import Architecture, StageConfig, local_path
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.build import check_architecture, from_architecture
from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.errors import ConfigurationError
from tests.trainer.conftest import MODEL, PRETRAIN, SFT, RunPods, Stage, stage_config
from tests.trainer.online import ONLINE, PYTHONPATH
from tests.trainer.pods import evaluations, history, losses

FUNCTIONS = "tests.trainer.user_functions"
LLAMA: dict[str, Any] = MODEL["architecture"]["config"]  # type: ignore[assignment]
ADAMW = {"learningRate": 0.003, "function": "torch.optim:AdamW"}
SHORT: dict[str, Any] = {"steps": 8, "checkpoint": {"everySteps": 4}, "evaluation": {"everySteps": 8}}


@pytest.fixture(scope="module")
def own(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[int, float]]:
    """By ZeRO's stage: the losses by our own AdamW."""
    from tests.trainer.pods import Pods

    found = {}
    for zero in (0, 1, 2, 3):
        settings = {**PRETRAIN, **SHORT, "zeroStage": zero}
        config = stage_config(prepared, f"own-{zero}", model=MODEL, pretrain=settings)
        Pods(config, tmp_path_factory.mktemp("pods"), warm=True).run()
        found[zero] = losses(config)
    return found


@pytest.mark.parametrize(
    "zero", [0, pytest.param(1, marks=pytest.mark.release), pytest.param(2, marks=pytest.mark.release), 3]
)
def test_a_torch_adamw_is_ours(zero: int, pretrain: Stage, pods: RunPods, own: dict[int, dict[int, float]]) -> None:
    config = pretrain(f"adamw-{zero}", **SHORT, zeroStage=zero, optimizer=ADAMW)
    pods(config).run()
    assert losses(config) == pytest.approx(own[zero], rel=1e-5)


@pytest.mark.parametrize(
    ("zero", "function"),
    [
        (0, "per_tensor"),
        pytest.param(1, "two_rates", marks=pytest.mark.release),
        pytest.param(2, "sgd", marks=pytest.mark.release),
        (3, "two_rates"),
    ],
)
def test_an_optimizer_goes_on_after_a_kill(zero: int, function: str, pretrain: Stage, pods: RunPods) -> None:
    settings: dict[str, Any] = {
        **SHORT, "steps": 12, "zeroStage": zero,
        "optimizer": {"learningRate": 0.003, "function": f"{FUNCTIONS}:{function}"},
    }  # fmt: skip
    whole = pretrain(f"whole-{function}-{zero}", **settings)
    pods(whole, PYTHONPATH=PYTHONPATH).run()
    first = pods(pretrain(f"killed-{function}-{zero}", **settings), PYTHONPATH=PYTHONPATH).start()
    first.until_step(6, saved=4)
    os.kill(first.pods[1].worker(), signal.SIGKILL)
    first.wait()
    second = pretrain(f"killed-{function}-{zero}", attempt=2, **settings)
    progress = pods(second, PYTHONPATH=PYTHONPATH).run()
    assert not [notice for notice in progress.notices if notice.reason == "FunctionChanged"]
    expected, made = losses(whole), losses(second)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-5
    assert made[12] < made[1]


def test_whole_parameters_are_refused_with_zero(pretrain: Stage, pods: RunPods) -> None:
    config = pretrain("per-tensor", nodes=1, optimizer={"function": f"{FUNCTIONS}:per_tensor"})
    word = pods(config, PYTHONPATH=PYTHONPATH).start().wait()[0]
    assert word.exit_code == ExitCode.CONFIGURATION
    assert "optimizer.function" in word.message
    assert "zeroStage: 0" in word.message


def test_rates_of_groups_follow_the_schedule(pretrain: Stage, pods: RunPods, own: dict[int, dict[int, float]]) -> None:
    """One rate for all would be our AdamW."""
    config = pretrain("two-rates", **SHORT, optimizer={**ADAMW, "function": f"{FUNCTIONS}:two_rates"})
    pods(config, PYTHONPATH=PYTHONPATH).run()
    made = losses(config)
    assert made[1] == pytest.approx(own[1][1], rel=1e-6)
    assert abs(made[8] - own[1][8]) > 1e-4


def test_a_loss_of_pretraining(pretrain: Stage, pods: RunPods) -> None:
    """However a step is divided; nearly ours, which also has the first token of each row as a target."""
    ours = pretrain("nats-ours", **SHORT)
    one = pretrain("nats-one", nodes=1, **SHORT, microBatchSize=8, lossFunction=f"{FUNCTIONS}:nats")
    many = pretrain("nats-many", **SHORT, microBatchSize=1, lossFunction=f"{FUNCTIONS}:greedy")
    for config in (ours, one, many):
        pods(config, PYTHONPATH=PYTHONPATH).run()
    assert losses(many) == pytest.approx(losses(one), rel=1e-4)
    assert losses(many) == pytest.approx(losses(ours), rel=0.02)
    assert evaluations(many)[8].keys() == evaluations(ours)[8].keys()


MIXTURE = {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("family", "config"),
    [("mixtral", MIXTURE), ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8})],
)
def test_a_loss_of_any_family(prepared: Path, pods: RunPods, family: str, config: dict[str, Any]) -> None:
    """A mixture keeps the loss of its routers, and a state-space model has its documents apart."""
    made = []
    for name, loss in (("ours", None), ("theirs", f"{FUNCTIONS}:nats")):
        settings = {**PRETRAIN, **SHORT, "steps": 4, "lossFunction": loss}
        model = {"architecture": {"family": family, "config": config}}
        made.append(stage_config(prepared, f"{family}-{name}", model=model, pretrain=settings))
        pods(made[-1], PYTHONPATH=PYTHONPATH).run()
    ours, theirs = made
    assert losses(theirs) == pytest.approx(losses(ours), rel=0.02)
    shown = [next(row for row in history(config) if "loss" in row).get("figures", {}) for config in made]
    assert shown[0].keys() == shown[1].keys()
    assert shown[1] == pytest.approx(shown[0], rel=1e-3)


def test_every_engine_of_ppo_by_the_users_optimizer(prepared: Path, base: str, prompts: str, pods: RunPods) -> None:
    """Both are torch's AdamW, so the run is ours."""
    rates = {"learningRate": 0.002, "function": "torch.optim:AdamW"}
    short = {**ONLINE, "epochs": 2, "dataset": {"uri": prompts, "validationFraction": 0.2}}
    made = []
    for name, optimizers in (
        ("ours", {"criticOptimizer": {"learningRate": 0.002}}),
        ("theirs", {"optimizer": rates, "criticOptimizer": rates}),
    ):
        settings = {**short, **optimizers}
        made.append(stage_config(prepared, f"ppo-{name}", model={"uri": base}, ppo=settings))
        pods(made[-1], PYTHONPATH=PYTHONPATH).run()
    assert losses(made[1]) == pytest.approx(losses(made[0]), rel=1e-3, abs=1e-4)


def test_an_adapter_by_the_users_optimizer(prepared: Path, base: str, pods: RunPods) -> None:
    optimizer = {"learningRate": 0.01, "function": f"{FUNCTIONS}:sgd"}
    settings: dict[str, Any] = {"epochs": 1, "lora": {"rank": 4}, "optimizer": optimizer}
    config = sft(prepared, base, "sgd-adapter", **settings)
    pods(config, PYTHONPATH=PYTHONPATH).run()
    figures = evaluations(config)
    assert figures[max(figures)]["loss"] < figures[0]["loss"]


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ({"field": "spec.stages[1].sft.lossFunction", "use": "loss", "function": f"{FUNCTIONS}:mean"}, "no heed to"),
        ({"field": "spec.stages[0].optimizer.function", "use": "optimizer", "function": f"{FUNCTIONS}:Still",
          "optimizer": {}}, "makes no step"),
        ({"field": "spec.stages[2].grpo.rewards[0].function", "function": f"{FUNCTIONS}:gone"}, "has no 'gone'"),
    ],
)  # fmt: skip
def test_data_preparation_refuses_it(prepared: Path, pods: RunPods, check: dict[str, Any], says: str) -> None:
    settings = {"tokenizer": {"uri": "pvc://models/run/data/tokenizer"}, "functions": [check]}
    config = stage_config(prepared, "functions", nodes=1, prepareData=settings, runUri="pvc://models/functions")
    word = pods(config, PYTHONPATH=PYTHONPATH).start().wait()[0]
    assert word.exit_code == ExitCode.CONFIGURATION, word
    assert word.message.startswith(f"{check['field']}: ")
    assert says in word.message


def test_data_preparation_takes_them(prepared: Path, pods: RunPods) -> None:
    checks = [
        {"field": "a", "use": "loss", "function": f"{FUNCTIONS}:nats"},
        {"field": "b", "use": "optimizer", "function": f"{FUNCTIONS}:per_tensor", "optimizer": {}, "flat": False},
        {"field": "c", "function": "tests.trainer.reward_functions:early"},
    ]
    settings = {
        "tokenizer": {"uri": "pvc://models/run/data/tokenizer"},
        "functions": checks,
        "architecture": architecture("small_output")["architecture"],
    }
    config = stage_config(prepared, "functions", nodes=1, prepareData=settings, runUri="pvc://models/right")
    pods(config, PYTHONPATH=PYTHONPATH).run()


def architecture(function: str) -> dict[str, Any]:
    return {"architecture": {**MODEL["architecture"], "function": f"{FUNCTIONS}:{function}"}}


def test_a_model_of_the_users(prepared: Path, pods: RunPods) -> None:
    """Its first weights are those of the function; the result is a transformers folder as any other."""
    settings = {**PRETRAIN, **SHORT}
    config = stage_config(prepared, "own-model", model=architecture("small_output"), pretrain=settings)
    progress = pods(config, PYTHONPATH=PYTHONPATH).run()
    vocabulary = len(load_tokenizer(Path(config.data_folder) / "tokenizer"))
    assert losses(config)[1] == pytest.approx(math.log(vocabulary), rel=1e-4)
    assert losses(config)[8] < losses(config)[1]
    assert progress.result
    folder = Path(local_path(progress.result.uri, str(prepared)))
    assert type(AutoModelForCausalLM.from_pretrained(folder)).__name__ == "LlamaForCausalLM"
    assert f"{FUNCTIONS}:small_output" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("function", "says"),
    [("another_family", "gave a gpt2 model where the family is llama"), ("another_key", "changed hidden_size of"),
     ("another_module", "whose module model.layers.0.mlp.act_fn is torch.nn"), ("another_weight", "whose weight extra"),
     ("subclass", "whose module itself is tests.trainer"), ("plain_module", "gave a Linear; it must return"),
     ("asks_values", "on torch's meta device"), ("without_tokenizer", "name a function (config, tokenizer)"),
     ("missing", "has no 'missing'")],
)  # fmt: skip
def test_models_that_no_folder_holds_are_refused_before_gpus(prepared: Path, function: str, says: str) -> None:
    made = Architecture.model_validate(architecture(function)["architecture"])
    tokenizer = load_tokenizer(prepared / "models/run/data/tokenizer")
    with pytest.raises(ConfigurationError) as error:
        check_architecture(made, tokenizer)
    assert str(error.value).startswith("spec.model.architecture.function: ")
    assert says in str(error.value)


def test_a_model_that_is_as_transformers_makes_it(prepared: Path) -> None:
    made = Architecture.model_validate(architecture("as_it_is")["architecture"])
    tokenizer = load_tokenizer(prepared / "models/run/data/tokenizer")
    check_architecture(made, tokenizer)
    assert {weight.dtype for weight in from_architecture(made, tokenizer).parameters()} == {torch.float32}
    broken = Architecture.model_validate(architecture("not_finite")["architecture"])
    check_architecture(broken, tokenizer)  # on the meta device there are no numbers
    with pytest.raises(ConfigurationError, match=r"embed_tokens\.weight is not finite"):
        from_architecture(broken, tokenizer)


def sft(prepared: Path, base: str, stage: str, *, nodes: int = 2, attempt: int = 1, **settings: Any) -> StageConfig:
    return stage_config(prepared, stage, nodes=nodes, attempt=attempt, model={"uri": base}, sft={**SFT, **settings})


def test_a_loss_of_sft_is_ours_where_it_is_the_same(prepared: Path, base: str, pods: RunPods) -> None:
    ours = sft(prepared, base, "sft-ours", epochs=0.5)
    same = sft(prepared, base, "sft-nats", epochs=0.5, lossFunction=f"{FUNCTIONS}:nats")
    other = sft(prepared, base, "sft-z", epochs=0.5, lossFunction=f"{FUNCTIONS}:with_z_loss")
    for config in (ours, same, other):
        pods(config, PYTHONPATH=PYTHONPATH).run()
    assert losses(same) == pytest.approx(losses(ours), rel=1e-4)
    assert losses(other)[1] > losses(ours)[1] + 0.01
    last = max(evaluations(ours))
    assert evaluations(same)[last] == pytest.approx(evaluations(ours)[last], rel=1e-4)


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "changing_loss.py"
    file.write_text(f"from {FUNCTIONS} import nats as base\ndef loss(outputs, labels, num_items_in_batch=None):\n"
                    "    return base(outputs, labels, num_items_in_batch)\n")  # fmt: skip
    yield file
    importlib.invalidate_caches()


def test_a_function_that_changed_between_attempts(prepared: Path, base: str, pods: RunPods, changing: Path) -> None:
    path = f"{changing.parent}:{PYTHONPATH}"
    settings: dict[str, Any] = {"epochs": 2, "lossFunction": "changing_loss:loss"}
    first = pods(sft(prepared, base, "changed", **settings), PYTHONPATH=path).start()
    first.until_step(7, saved=5)
    os.kill(first.pods[1].worker(), signal.SIGKILL)
    first.wait()
    changing.write_text(changing.read_text() + "# another\n")
    second = sft(prepared, base, "changed", attempt=2, **settings)
    progress = pods(second, PYTHONPATH=path).run()
    told = [notice.message for notice in progress.notices if notice.reason == "FunctionChanged"]
    assert len(told) == 1
    assert "sft.lossFunction" in told[0]
    assert len([row for row in history(second) if "loss" in row]) == progress.step


def test_a_loss_that_fails_at_a_step(prepared: Path, base: str, pods: RunPods, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        f"from {FUNCTIONS} import nats\ndef loss(outputs, labels, num_items_in_batch=None):\n"
        "    assert outputs.logits.shape[-1] < 100, 'too many tokens'\n"
        "    return nats(outputs, labels, num_items_in_batch)\n"
    )
    config = sft(prepared, base, "late", nodes=1, lossFunction="late:loss")
    word = pods(config, PYTHONPATH=f"{tmp_path}:{PYTHONPATH}").start().wait()[0]
    assert (word.exit_code, word.reason) == (ExitCode.CONFIGURATION, "ConfigurationError")
    assert "sft.lossFunction: late:loss raised AssertionError: too many tokens" in word.message
