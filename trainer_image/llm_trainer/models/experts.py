"""What a mixture of experts adds to the language loss, and how evenly its experts are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from llm_trainer.runtime.process_group import ProcessGroup

COUNTS = ("n_routed_experts", "num_local_experts")
# Asked for their routers' logits they give none, in transformers 5, though their configuration has the key.
SILENT = ("granitemoe", "granitemoe_swa", "granitemoehybrid", "granitemoeshared")


@dataclass(frozen=True)
class Routing:
    """Of one micro-batch. Scalars, but for `load`: (layers, experts), the share of the routed tokens of each expert."""

    balance_loss: torch.Tensor
    z_loss: torch.Tensor
    load: torch.Tensor


def routing(
    router_logits: tuple[torch.Tensor, ...],
    chosen: int,
    mean: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Routing:
    """`router_logits`: (tokens, experts) of each layer; `chosen`: experts per token.

    `mean`: over the ranks that share the rows, if any do. The mean of their losses is the one of the rows, because it
    is linear in the probabilities, and the experts' shares have no gradient.

    Balance loss: Fedus et al. 2021 (Switch Transformer, eq. 4), 1 × chosen when all experts are used evenly.
    z-loss: Zoph et al. 2022 (ST-MoE, eq. 5). Both are means over the layers.
    """
    logits = torch.stack([layer.float() for layer in router_logits])
    experts = logits.shape[-1]
    probabilities = logits.softmax(dim=-1)
    picked = torch.zeros_like(probabilities).scatter_(-1, logits.topk(chosen, dim=-1).indices, 1.0)
    share = picked.mean(dim=1) if mean is None else mean(picked.mean(dim=1))
    return Routing(
        balance_loss=experts * (share * probabilities.mean(dim=1)).sum(dim=-1).mean(),
        z_loss=logits.logsumexp(dim=-1).square().mean(),
        load=share.detach() / chosen,
    )


def has_experts(config: object) -> bool:
    return shows_routers(config) or any(getattr(config, name, 0) for name in (*COUNTS, "num_experts"))


def shows_routers(config: object) -> bool:
    return hasattr(config, "output_router_logits") and getattr(config, "model_type", None) not in SILENT


def experts_per_token(config: object) -> int | None:
    """None for a model without experts, or one whose router transformers does not show (DeepSeek-V3 needs no loss)."""
    if not shows_routers(config):
        return None
    return int(getattr(config, "num_experts_per_tok", 0)) or None


def name_experts(config: PreTrainedConfig) -> None:
    """TRL asks every mixture for `num_experts`; some of transformers have them by another name alone (`granitemoe`,
    `phimoe`, `jetmoe`, `llama4_text`). What is saved stays as it is.
    """
    known = next((key for key in COUNTS if hasattr(config, key)), None)
    if known and not hasattr(config, "num_experts"):
        type(config).attribute_map = {**type(config).attribute_map, "num_experts": known}


class Routers:
    """Adds up the micro-batches of a step."""

    def __init__(self, balance_weight: float, z_weight: float) -> None:
        self.balance_weight, self.z_weight = balance_weight, z_weight
        self._seen: list[Routing] = []
        self.load: list[
            list[float]
        ] = []  # of the last step that `figures` was asked for: [layer][expert], each a share

    def add(self, routed: Routing | None) -> torch.Tensor | float:
        """What the micro-batch's loss grows by; a mean over the micro-batches and ranks follows from DeepSpeed's."""
        if routed is None:
            return 0.0
        self._seen.append(Routing(routed.balance_loss.detach(), routed.z_loss.detach(), routed.load))
        return self.balance_weight * routed.balance_loss + self.z_weight * routed.z_loss

    def figures(self, group: ProcessGroup) -> dict[str, float]:
        """Means over the step; a collective. Empty without experts.

        `router/maxLoad`: the busiest expert's share, as a multiple of an even one; `router/deadExperts`: how many, in
        all layers, got no token. No token is dropped: the experts of transformers have no capacity limit.
        """
        if not self._seen:
            return {}
        seen, self._seen = self._seen, []
        load = torch.stack([one.load for one in seen]).mean(dim=0)
        parts = [
            float(torch.stack([one.balance_loss for one in seen]).mean()),
            float(torch.stack([one.z_loss for one in seen]).mean()),
            *load.flatten().tolist(),
        ]
        balance, z, *loads = (value / group.world_size for value in group.sum(*parts))
        experts = load.shape[1]
        self.load = [loads[first : first + experts] for first in range(0, len(loads), experts)]
        return {
            "router/balanceLoss": balance,
            "router/zLoss": z,
            "router/maxLoad": max(loads) * experts,
            "router/deadExperts": float(sum(value == 0 for value in loads)),
        }
