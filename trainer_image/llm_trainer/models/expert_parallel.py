"""Expert parallelism by DeepSpeed's AutoEP: each process holds some of every layer's experts, tokens travel to them.

AutoEP replaces a layer's mixture by its own module with other names of the same weights; here they get the ones of
transformers back, so that a result is the same whether the experts were spread or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.nn import Module

from llm_trainer.models.joined import Joined


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


def stored_experts(model: Module, state: dict[str, Any]) -> dict[str, Any]:
    """`state` with all experts, which are joined as they are written, and with transformers' names."""
    for name, mixture in spread_mixtures(model):
        gate, down, up = (getattr(mixture.experts, part) for part in ("w1", "w2", "w3"))
        for key in [key for key in state if key.startswith((f"{name}.experts.", f"{name}.router.", f"{name}.gate."))]:
            del state[key]
        state[f"{name}.experts.gate_up_proj"] = Joined((gate, up), mixture.ep_group, beside=1)
        state[f"{name}.experts.down_proj"] = Joined((down,), mixture.ep_group)
        state[f"{name}.gate.weight"] = mixture.router.gate.weight
        correction = getattr(mixture.router, "e_score_correction_bias", None)
        if correction is not None:
            state[f"{name}.gate.e_score_correction_bias"] = correction
    return state
