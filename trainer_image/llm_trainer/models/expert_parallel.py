"""Expert parallelism by DeepSpeed's AutoEP: each process holds some of every layer's experts, tokens travel to them.

AutoEP replaces a layer's mixture by its own module with other names of the same weights; here they get the ones of
transformers back, so that a result is the same whether the experts were spread or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.nn import Module


def expert_parallel_config(size: int, family: str) -> dict[str, Any]:
    """For DeepSpeed; `size`: processes that share a layer's experts; `family`: of transformers and of the preset."""
    if size == 1:
        return {}
    wanted = {"enabled": True, "autoep_size": size, "preset_model": family, "use_grouped_mm": True}
    return {"expert_parallel": wanted}


def spread_mixtures(model: Module) -> Iterator[tuple[str, Any]]:
    """The mixtures whose experts are spread, by name."""
    from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer

    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, AutoEPMoELayer))


def whole_experts(model: Module, state: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor] | None:
    """`state` with all experts and with transformers' names; a collective. None where `state` is None."""
    for name, mixture in spread_mixtures(model):
        gate, down, up = (gathered(getattr(mixture.experts, part), mixture.ep_group) for part in ("w1", "w2", "w3"))
        if state is None:
            continue
        for key in [key for key in state if key.startswith((f"{name}.experts.", f"{name}.router.", f"{name}.gate."))]:
            del state[key]
        state[f"{name}.experts.gate_up_proj"] = torch.cat([gate, up], dim=1)
        state[f"{name}.experts.down_proj"] = down
        state[f"{name}.gate.weight"] = mixture.router.gate.weight.detach().cpu()
        correction = getattr(mixture.router, "e_score_correction_bias", None)
        if correction is not None:
            state[f"{name}.gate.e_score_correction_bias"] = correction.detach().cpu()
    return state


def gathered(weight: torch.Tensor, group: Any) -> torch.Tensor:
    """(experts, …) on CPU of (own experts, …), in the order of the ranks, which is that of the experts."""
    parts = [torch.empty_like(weight) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(parts, weight.detach().contiguous(), group=group)
    return torch.cat(parts).cpu()
