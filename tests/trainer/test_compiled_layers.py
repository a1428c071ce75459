"""Layers compiled by torch.compile: losses and gradients of those that are not, and a stage that goes on without."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_trainer.checkpoint.rollbacks import COMPILING
from llm_trainer.config import UNCOMPILED_FAMILIES, StageConfig
from llm_trainer.models.compiled_layers import CompiledLayers, DiffersError
from llm_trainer.models.experts import has_experts
from llm_trainer.models.language_loss import add_loss
from llm_trainer.models.packing import runs_on
from tests.trainer.conftest import MODEL, RunPods, Stage
from tests.trainer.pods import Pods, forget_the_end, losses
from tests.trainer.test_families import FAMILIES
from tests.trainer.tiny import ALL, tiny

NOTICE = "LayersCompiled"
DENSE = [family for family in ALL if not (has_experts((model := tiny(family)).config) or runs_on(model))]
FAST = ("llama", "gpt2")  # the latter with dropout


def checkpoints(config: StageConfig) -> Path:
    return Path(config.stage_folder) / "checkpoints"


def told(pair: Pods) -> list[str]:
    return [notice.message for notice in pair.pods[0].termination.progress.notices if notice.reason == NOTICE]  # type: ignore[union-attr]


def gradients(family: str, *, compiled: bool) -> list[torch.Tensor]:
    """The loss and each weight's gradient, of rows with a mask and without one."""
    model = tiny(family).train()
    add_loss(model)
    tokens = torch.arange(2, 82).view(2, 40) % 300
    whole = torch.arange(39).expand(2, -1)

    def loss(positions: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        made: torch.Tensor = model(
            input_ids=tokens[:, :-1], position_ids=positions, targets=tokens[:, 1:], use_cache=False
        ).nats
        return made

    if compiled:
        layers = CompiledLayers(model)
        assert layers.layers, f"{family}: transformers marks no layers"
        for positions in (whole, whole % 20):
            with layers.calls() as calls, torch.no_grad():
                loss(positions)
            layers.compare(calls, nullcontext, torch.float32, lambda: None)
        assert all(weight.grad is None for weight in model.parameters())
        layers.adopt()
    made = loss(whole) + loss(whole % 20)
    found = torch.autograd.grad(made, list(model.parameters()), allow_unused=True)
    return [made.detach(), *(part for part in found if part is not None)]


@pytest.mark.parametrize("family", [pytest.param(f, marks=[] if f in FAST else pytest.mark.release) for f in DENSE])
def test_every_dense_family(family: str) -> None:
    expected, found = gradients(family, compiled=False), gradients(family, compiled=True)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_gradients_come_in_one_order() -> None:
    """Whether a row has a mask or not: DeepSpeed fills its buckets as they come, on each rank by its own rows."""
    model = tiny("llama").train()
    layers, order, positions = CompiledLayers(model), list[str](), torch.arange(40)[None]
    layers.adopt()
    for name, weight in model.named_parameters():
        weight.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))

    def came(positions: torch.Tensor) -> list[str]:
        order.clear()
        model(input_ids=positions + 2, position_ids=positions, use_cache=False).logits.sum().backward()
        return [*order]

    assert came(positions) == came(positions % 20)


def test_families_that_are_not() -> None:
    """Those that the operator knows by name."""
    assert tuple(family for family in FAMILIES if family not in DENSE) == UNCOMPILED_FAMILIES


def test_what_computes_something_else_is_not_taken() -> None:
    model = tiny("llama")
    layers = CompiledLayers(model)
    with layers.calls() as calls, torch.no_grad():
        model(input_ids=torch.arange(8)[None], use_cache=False)
    wrong = [lambda *given, of=layer.forward, **named: of(*given, **named) * 1.01 for layer in layers.layers]
    layers._compiled = wrong
    with pytest.raises(DiffersError, match=r"a compiled LlamaDecoderLayer is 1\.\de-02 from what it is"):
        layers.compare(calls, nullcontext, torch.float32, lambda: None)


SETTINGS: list[dict[str, Any]] = [
    {"zeroStage": 1},
    {"zeroStage": 0, "activationCheckpointing": True},
    {"zeroStage": 2, "lora": {"rank": 4}},
    {"zeroStage": 1, "precision": "bfloat16"},
]


@pytest.mark.parametrize(
    "settings", [pytest.param(given, marks=[] if not n else pytest.mark.release) for n, given in enumerate(SETTINGS)]
)
def test_pretraining(settings: dict[str, Any], pretrain: Stage, pods: RunPods, base: str) -> None:
    """With documents that end within rows, on some ranks and not on others."""
    name = "-".join(str(value) for value in settings.values() if not isinstance(value, dict)).lower()
    given = {**settings, "steps": 8, "model": {"uri": base} if "lora" in settings else None}
    eager = pretrain(f"compile-not-{name}", compile=False, **given)
    pods(eager).run()
    pair = pods(pretrain(f"compile-{name}", compile=True, **given))
    pair.run()
    (notice,) = told(pair)
    assert "times as fast as before" in notice
    near = 1e-2 if settings.get("precision") == "bfloat16" else 1e-5
    assert losses(pair.config) == pytest.approx(losses(eager), rel=near)
    assert not (checkpoints(pair.config) / COMPILING).exists()


def test_an_attempt_that_goes_on_compiles_again(pretrain: Stage, pods: RunPods) -> None:
    config = pretrain("compile-again", compile=True, steps=8)
    pods(config).run()
    expected = losses(config)
    forget_the_end(config, 8)
    again = pods(pretrain("compile-again", attempt=2, compile=True, steps=8))
    again.run()
    assert "resumed from step-00000005" in again.pods[0].log
    assert told(again)
    assert losses(config) == pytest.approx(expected, rel=1e-5)


def test_where_it_is_worth_it(pretrain: Stage, pods: RunPods) -> None:
    """By itself after the first steps, whatever comes of it; not before a short stage's end."""
    short = pods(pretrain("compile-short", steps=8))
    short.run()
    assert "layers stay as they are" not in short.pods[0].log
    assert NOTICE not in short.pods[0].log
    long = pods(pretrain("compile-long", steps=8), LLM_COMPILE_SECONDS="0")
    long.run()
    log = long.pods[0].log
    assert NOTICE in log or "layers stay as they are: compiled they would be" in log, log[-2000:]
    assert losses(long.config) == pytest.approx(losses(short.config), rel=1e-5)


def test_without_a_compiler(pretrain: Stage, pods: RunPods, tmp_path: Path) -> None:
    (none := tmp_path / "g++").write_text("#!/bin/sh\nexit 127\n")
    none.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    asked = pods(pretrain("compile-asked", steps=8, compile=True), PATH=path).start()
    (word, *_) = asked.wait()
    assert word.reason == "ConfigurationError", word
    assert word.message.startswith("pretrain.compile: the layers can't be compiled here"), word.message
    by_itself = pods(pretrain("compile-by-itself", steps=8), LLM_COMPILE_SECONDS="0", PATH=path)
    by_itself.run()
    assert "layers stay as they are: " in by_itself.pods[0].log


def test_what_it_does_not_go_with(pretrain: Stage, pods: RunPods) -> None:
    mamba = {"architecture": {"family": "mamba", "config": {"hidden_size": 32, "num_hidden_layers": 1}}}
    for name, model, settings, why in (
        ("spread", MODEL, {"zeroStage": 3}, "zeroStage 3"),
        ("state", mamba, {}, "mamba, whose documents have rows of their own"),
    ):
        (word, *_) = pods(pretrain(f"compile-{name}", model=model, steps=8, compile=True, **settings)).start().wait()
        assert word.message == f"pretrain.compile: true does not go with {why}; leave it out"


def test_a_kill_while_it_compiles(pretrain: Stage, pods: RunPods) -> None:
    """The next attempt stays without, by itself; and goes on where the last one was."""
    config = pretrain("compile-killed", steps=12)
    first = pods(config, LLM_COMPILE_SECONDS="0").start()
    note, end = checkpoints(config) / COMPILING, time.monotonic() + 120
    while not note.exists():
        assert time.monotonic() < end, first.pods[0].log[-2000:]
        time.sleep(0.01)
    for pod in first.pods:
        for worker in pod.workers():
            os.kill(worker, signal.SIGKILL)
    first.wait()
    assert json.loads(note.read_text()) == {"attempt": 1}
    second = pods(pretrain("compile-killed", attempt=2, steps=12), LLM_COMPILE_SECONDS="0")
    second.run()
    assert "layers stay as they are: an attempt ended while it compiled them" in second.pods[0].log
