"""TRL's fused head on a CPU, by our function in the place of TRL's: the same figures and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import Linear
from transformers import AutoConfig, AutoModelForCausalLM
from trl.kernels import ChunkedLogProbFunction
from trl.trainer import utils

from llm_trainer.models import target_scores
from llm_trainer.models.target_scores import NAMES, TargetScores, score_targets_on_cpu
from tests.trainer.test_language_loss import Largest, Products

VOCABULARY, WIDTH, TARGETS = 50, 16, 33
CHUNK = 32768  # TRL's, of the vocabulary


@pytest.fixture(params=[2**27, 4 * 7 * VOCABULARY], ids=["one tile", "five tiles, of which four are kept"])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(target_scores, "TILE", request.param)
    return int(request.param)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("temperature", "scale"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.25)])
@pytest.mark.usefixtures("tile")
def test_figures_and_gradients_are_trls(*, bias: bool, temperature: float, scale: float) -> None:
    for one, other in zip(*both(bias, temperature, scale), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("tile")
def test_in_bfloat16_they_are_as_near_to_the_truth() -> None:
    truth, _ = both(True, 0.7, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = both(True, 0.7, 1.0)
    for name, one, other, right in zip((*NAMES, "hidden", "weight", "bias"), ours, theirs, truth, strict=True):
        if name == "is_top1":  # where two logits are the same in bfloat16, the first
            assert (one != right).sum() <= 1
            continue
        error, allowed = (float((made.float() - right).abs().max()) for made in (one, other))
        assert error <= 2 * allowed + 0.005, f"{name} is {error} off, TRL's {allowed}"


def both(bias: bool, temperature: float, scale: float) -> Iterator[list[torch.Tensor]]:
    for function in (TargetScores, ChunkedLogProbFunction):
        torch.manual_seed(0)
        hidden, head = torch.randn(TARGETS, WIDTH, requires_grad=True), Linear(WIDTH, VOCABULARY, bias=bias)
        targets = head(hidden).argmax(dim=-1)
        targets[::3] = 3
        made: Any = function.apply(hidden, head.weight, head.bias, targets, temperature, CHUNK, None, scale, NAMES[1:])
        weights = torch.randn(TARGETS)
        gradients = torch.autograd.grad((made[0] * weights).sum(), [hidden, *head.parameters()])
        yield [*(part.detach() for part in made), *gradients]


def test_a_soft_cap_is_trls_own() -> None:
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(5, WIDTH), Linear(WIDTH, VOCABULARY), torch.arange(5)
    given = (hidden, head.weight, head.bias, targets, 1.0, CHUNK, 2.0, 1.0, ())
    capped = 2 * torch.tanh(head(hidden) / 2)
    expected = capped.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(TargetScores.apply(*given)[0], expected)


def test_a_loss_of_the_entropy_is_refused() -> None:
    """Its gradient would be missing without a word."""
    hidden, head = torch.randn(5, WIDTH, requires_grad=True), Linear(WIDTH, VOCABULARY)
    _, entropy, *_ = TargetScores.apply(
        hidden, head.weight, head.bias, torch.arange(5), 1.0, CHUNK, None, 1.0, ("entropy",)
    )
    assert entropy is not None
    with pytest.raises(NotImplementedError, match="entropy"):
        torch.autograd.backward(entropy.sum())


def test_frozen_weights_get_no_gradient() -> None:
    hidden, head = torch.randn(5, WIDTH, requires_grad=True), Linear(WIDTH, VOCABULARY, bias=False)
    head.requires_grad_(False)
    given: Any = (hidden, head.weight, None, torch.arange(5), 1.0, CHUNK, None, 1.0, ())
    with Products() as made:
        torch.autograd.backward(TargetScores.apply(*given)[0].sum())  # type: ignore[union-attr]
    assert made.shapes == [(5, VOCABULARY), (5, WIDTH)], "of what is kept nothing is projected again"


def test_no_more_is_kept_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_scores, "TILE", 128 * 1000)
    hidden, head = torch.randn(3200, 8, requires_grad=True), Linear(8, 1000, bias=False)
    given: Any = (hidden, head.weight, None, torch.randint(1000, (3200,)), 1.0, CHUNK, None, 1.0, NAMES[1:])
    with Largest() as seen:  # type: ignore[no-untyped-call]
        scores = TargetScores.apply(*given)[0]
    assert scores is not None
    assert scores.grad_fn is not None
    kept = [part for part in scores.grad_fn.saved_tensors if part is not None][3:]  # type: ignore[attr-defined]
    assert seen.elements <= 32 * 1000, seen.elements
    assert sum(part.numel() for part in kept) == 128 * 1000


@pytest.mark.parametrize("some", [True, False], ids=["some targets", "no target"])
def test_a_models_prompt_is_not_projected(monkeypatch: pytest.MonkeyPatch, *, some: bool) -> None:
    monkeypatch.setattr(utils, "_use_triton", utils._use_triton)  # so that both are taken back
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", ChunkedLogProbFunction)
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=16,
                                  num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    utils.add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    tokens = torch.randint(VOCABULARY, (2, 9))
    labels = tokens.clone()
    labels[:, : 7 if some else None] = -100

    def run() -> tuple[list[torch.Tensor], list[tuple[int, ...]]]:
        with Products() as made:
            outputs = model(input_ids=tokens, labels=labels, fused_lm_head=True)
            gradients = torch.autograd.grad(outputs.log_probs.sum(), list(model.parameters()))
        wide = [shape for shape in made.shapes if shape[-1] == VOCABULARY]
        return [outputs.log_probs, outputs.entropy, *gradients], wide

    theirs, _ = run()
    score_targets_on_cpu()
    ours, projected = run()
    assert projected == [(4 if some else 0, VOCABULARY)]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
