"""Which parameters decay, and which Muon takes: what a parameter is, told by the module that has it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module, Parameter
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

LINEAR = (torch.nn.Linear, Conv1D)
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
STATE_SPACE = frozenset({"A_log", "A", "D", "dt_bias"})  # rates and skips of a recurrence, whatever their shape


def dimensions(parameter: Parameter) -> int:
    """ZeRO-3 keeps the shape of a parameter that it has spread apart from it."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def decays(name: str, parameter: Parameter) -> bool:
    """Matrices do: no norm, no bias (those of experts are stacked), nothing of a recurrence (Gu and Dao 2023)."""
    leaf = name.rpartition(".")[2]
    return dimensions(parameter) >= 2 and leaf not in STATE_SPACE and not leaf.endswith("bias")


def decaying(model: Module) -> set[str]:
    """Names."""
    return {name for name, parameter in model.named_parameters() if decays(name, parameter)}


def hidden_matrices(model: Module) -> set[int]:
    """Identities of what Muon is for (Jordan et al. 2024): matrices from hidden to hidden, stacked experts included.

    No embedding of tokens or positions, under whatever name and also where it is the output's matrix; no output, no
    convolution, nothing of a recurrence.
    """
    apart = {id(module.weight) for module in model.modules() if isinstance(module, (torch.nn.Embedding, *CONVOLUTIONS))}
    for module in model.modules():
        head = module.get_output_embeddings() if isinstance(module, PreTrainedModel) else None
        apart |= {id(head.weight)} if head is not None else set()
    found = set()
    for name, parameter in model.named_parameters():
        wanted = 3 if ".experts." in name else 2
        if decays(name, parameter) and dimensions(parameter) == wanted and id(parameter) not in apart:
            found.add(id(parameter))
    return found


def tag_for_muon(config: Any, model: Module) -> None:
    """In the place of DeepSpeed's own `set_optimizer_flags`, which goes by the names `embed` and `lm_head` alone."""
    if str(config.optimizer_name).lower() != "muon":
        return
    hidden = hidden_matrices(model)
    for parameter in model.parameters():
        tagged: Any = parameter
        tagged.use_muon, tagged.muon_num_heads, tagged.muon_head_dim = id(parameter) in hidden, None, None
