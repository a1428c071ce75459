"""What users name as module:function, right and wrong."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import Module
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer
from transformers import AutoModelForCausalLM, GPT2Config, LlamaForCausalLM, PreTrainedModel

# --- losses ---


class Outputs(Protocol):
    """Transformers', of which a loss may read the logits: (batch, length, vocabulary)."""

    logits: torch.Tensor


def nats(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    """Cross-entropy, as the stages' own."""
    logits, targets = outputs.logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
    return cross_entropy(logits, targets, ignore_index=-100, reduction="sum") / num_items_in_batch


def with_z_loss(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    counted = labels[:, 1:] != -100
    z = torch.logsumexp(outputs.logits[:, :-1].float(), dim=-1)
    return nats(outputs, labels, num_items_in_batch) + 1e-2 * (z**2 * counted).sum() / num_items_in_batch


def greedy(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    """Changes what it was given, as a loss may."""
    loss = nats(outputs, labels.clone(), num_items_in_batch)
    labels.fill_(0)
    return loss


def mean(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    return cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def nan_loss(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    return nats(outputs, labels, num_items_in_batch) * float("nan")


def numpy_loss(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> float:
    return float(nats(outputs, labels, num_items_in_batch))


def detached(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    return nats(outputs, labels, num_items_in_batch).detach()


def by_token(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    return outputs.logits.sum(dim=-1) / num_items_in_batch


def all_labels(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    """Takes -100 for a token."""
    return -outputs.logits.gather(2, labels[..., None]).sum() / num_items_in_batch


def ignores_logits(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    return torch.zeros((), requires_grad=True) * 2


def two_arguments(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
    return outputs.logits.sum()


def planted(outputs: Outputs, labels: torch.Tensor, num_items_in_batch: float = 1) -> torch.Tensor:
    """`nats`, but on the rows that the file $LLM_TEST_PLANTED names: other labels, or no number at all."""
    file = os.environ.get("LLM_TEST_PLANTED")
    bad: dict[str, list[int]] = json.loads(Path(file).read_text()) if file else {}
    keys = [row_key(row) for row in labels.tolist()]
    if any(key in bad.get("shuffled", []) for key in keys):
        labels = torch.where(labels >= 0, (labels * 7 + 13) % outputs.logits.shape[-1], labels)
    loss = nats(outputs, labels, num_items_in_batch)
    return loss * float("nan") if any(key in bad.get("nan", []) for key in keys) else loss


def row_key(tokens: list[int]) -> int:
    return zlib.crc32(",".join(map(str, tokens)).encode())


# --- optimizers ---


class BlowsUp(AdamW):
    """Its fifth step on a model makes weights that are no numbers; a process makes only one of those."""

    made = 0

    def step(self, closure: Any = None) -> Any:
        done = super().step(closure)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if sum(parameter.numel() for parameter in parameters) < 10_000:
            return done  # a trial of the function
        BlowsUp.made += 1
        if BlowsUp.made == 5:
            with torch.no_grad():
                for parameter in parameters:
                    parameter.fill_(float("nan"))
        return done


def blows_up(groups: list[dict[str, Any]], **settings: Any) -> Optimizer:
    return BlowsUp(groups, **settings)


def sgd(groups: list[dict[str, Any]], lr: float, **_: Any) -> Optimizer:
    return SGD(groups, lr=lr, momentum=0.9)


def two_rates(groups: list[dict[str, Any]], lr: float, **settings: Any) -> Optimizer:
    """Vectors learn ten times as fast."""
    rates = {"matrices": lr, "vectors": 10 * lr}
    return AdamW([{**group, "lr": rates[group["name"]]} for group in groups], lr=lr, **settings)


def per_tensor(groups: list[dict[str, Any]], lr: float, **_: Any) -> Optimizer:
    return Normalised(groups, lr)


def first_group(groups: list[dict[str, Any]], lr: float, **settings: Any) -> Optimizer:
    return AdamW(groups[:1], lr=lr, **settings)


def no_optimizer(groups: list[dict[str, Any]], **settings: Any) -> str:
    return "adamw"


def raises(groups: list[dict[str, Any]], **settings: Any) -> Optimizer:
    raise KeyError("beta3")


def without_rate(groups: list[dict[str, Any]], **settings: Any) -> Optimizer:
    optimizer = AdamW(groups, **settings)
    del optimizer.param_groups[0]["lr"]
    return optimizer


class Bare(Optimizer):
    """What each of these does is its `move`."""

    def __init__(self, groups: Any, lr: float, **_: Any) -> None:
        super().__init__(groups, {"lr": lr})
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= self.move(group["lr"], parameter)

    def move(self, lr: float, parameter: torch.Tensor) -> Any:
        assert parameter.grad is not None
        return lr * parameter.grad


class Normalised(Bare):
    """By the norm of a parameter's own gradient: whole parameters are needed."""

    def move(self, lr: float, parameter: torch.Tensor) -> Any:
        assert parameter.grad is not None
        return lr * parameter.grad / (parameter.grad.norm() + 1e-8)


class Still(Bare):
    def move(self, lr: float, parameter: torch.Tensor) -> Any:
        return 0.0


class Noisy(Bare):
    def move(self, lr: float, parameter: torch.Tensor) -> Any:
        return lr * torch.randn_like(parameter)


class Fixed(Bare):
    """Learns at its own rate."""

    def move(self, lr: float, parameter: torch.Tensor) -> Any:
        return super().move(0.001, parameter)


class Forgetful(Bare):
    """Counts its steps where no checkpoint looks."""

    def move(self, lr: float, parameter: torch.Tensor) -> Any:
        return super().move(lr / self.steps, parameter)


class Infinite(Bare):
    def move(self, lr: float, parameter: torch.Tensor) -> Any:
        return float("inf")


class Early(Bare):
    """Makes its state when it is made, of parameters that ZeRO takes away."""

    def __init__(self, groups: Any, lr: float, **_: Any) -> None:
        super().__init__(groups, lr)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["sum"] = torch.zeros_like(parameter)

    def move(self, lr: float, parameter: torch.Tensor) -> Any:
        assert parameter.grad is not None
        total = self.state[parameter]["sum"]
        total += parameter.grad
        return lr * total


class Pickled(Bare):
    """Keeps what torch won't load from a checkpoint."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["module"] = Module()


# --- models ---


def small_output(config: Any, tokenizer: Any) -> PreTrainedModel:
    """The family's own, which takes all tokens for nearly as likely at first."""
    model = AutoModelForCausalLM.from_config(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=1e-4)
    return model


def as_it_is(config: Any, tokenizer: Any) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).float()


def another_family(config: Any, tokenizer: Any) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(GPT2Config(vocab_size=config.vocab_size, n_embd=16, n_head=2))


def another_key(config: Any, tokenizer: Any) -> PreTrainedModel:
    config.hidden_size *= 2
    return AutoModelForCausalLM.from_config(config)


def another_module(config: Any, tokenizer: Any) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(config)
    model.model.layers[0].mlp.act_fn = torch.nn.GELU()
    return model


def another_weight(config: Any, tokenizer: Any) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(config)
    model.extra = torch.nn.Parameter(torch.zeros(3))
    return model


def subclass(config: Any, tokenizer: Any) -> PreTrainedModel:
    class Other(LlamaForCausalLM):  # type: ignore[misc]
        pass

    return Other(config)


def plain_module(config: Any, tokenizer: Any) -> Module:
    return torch.nn.Linear(2, 2)


def asks_values(config: Any, tokenizer: Any) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(config)
    if float(model.get_input_embeddings().weight.std()) > 1:
        raise ValueError
    return model


def not_finite(config: Any, tokenizer: Any) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(config)
    torch.nn.init.constant_(model.get_input_embeddings().weight, float("nan"))
    return model


def without_tokenizer(config: Any) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(config)
