"""The bias of a mixture that is balanced without a loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from llm_trainer.models.balance import BIAS, SPEED, Balance, biases, routers
from llm_trainer.runtime.process_group import ProcessGroup
from tests.trainer.tiny import VOCABULARY, tiny

ALONE = cast("ProcessGroup", SimpleNamespace(sum=lambda *values: values))
TWICE = cast("ProcessGroup", SimpleNamespace(sum=lambda *values: tuple(2 * value for value in values)))


def made(family: str = "deepseek_v3", *, learns: bool = True) -> tuple[Any, Balance]:
    model = tiny(family).train()
    return model, Balance(model, biases(model), learns=learns)


def tokens() -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(1))


def test_a_busy_expert_is_chosen_less() -> None:
    """Down above the layer's mean, up below it, by the paper's speed; all micro-batches count."""
    model, balance = made()
    (router,) = routers(model)
    seen: list[torch.Tensor] = []
    router.register_forward_hook(lambda _, __, output: seen.append(output[2]))
    for _ in range(2):
        model(input_ids=tokens(), use_cache=False)
    counts = torch.cat(seen).flatten().bincount(minlength=4).float()
    figures = balance.step(ALONE, applied=True)
    expected = SPEED * torch.sign(counts.mean() - counts)
    assert torch.allclose(router.get_buffer(BIAS), expected)
    assert figures["router/maxLoad"] == pytest.approx(float(counts.max() / counts.mean()))
    assert bool(expected.any()), "this test could not fail"
    balance.step(ALONE, applied=True)
    assert torch.allclose(router.get_buffer(BIAS), expected), "counted once"


def test_it_evens_the_load() -> None:
    model, balance = made()
    router = routers(model)[0]
    with torch.no_grad():
        router.get_buffer(BIAS)[0] += 0.1  # a favourite
    loads = []
    for _ in range(150):
        model(input_ids=tokens(), use_cache=False)
        loads.append(balance.step(ALONE, applied=True)["router/maxLoad"])
    assert loads[0] > 1.9
    assert loads[-1] < 1.2


def test_what_does_not_count() -> None:
    """Evaluation, a step that was left out, and a base under an adapter."""
    model, balance = made()
    bias = routers(model)[0].get_buffer(BIAS)
    model.eval()(input_ids=tokens(), use_cache=False)
    assert balance.step(ALONE, applied=True)["router/deadExperts"] == 4
    with torch.no_grad():
        model.train()(input_ids=tokens(), use_cache=False)
    assert balance.step(TWICE, applied=True)["router/deadExperts"] == 4
    model(input_ids=tokens(), use_cache=False)
    balance.step(ALONE, applied=False)
    assert not bias.any()
    frozen, still = made(learns=False)
    frozen(input_ids=tokens(), use_cache=False)
    still.step(ALONE, applied=True)
    assert not routers(frozen)[0].get_buffer(BIAS).any()


def test_it_is_float32_again_after_an_engine() -> None:
    model = tiny("deepseek_v3")
    with torch.no_grad():
        routers(model)[0].get_buffer(BIAS).fill_(1.001)
    kept = biases(model)
    Balance(model.bfloat16(), kept, learns=True)
    bias = routers(model)[0].get_buffer(BIAS)
    assert bias.dtype == torch.float32
    assert bias.tolist() == pytest.approx([1.001] * 4)
    assert BIAS in routers(model)[0].state_dict(), "it goes into checkpoints and results"


def test_other_mixtures_have_none() -> None:
    model, balance = made("mixtral")
    assert balance.step(ALONE, applied=True) == {}
    assert routers(model) == []
