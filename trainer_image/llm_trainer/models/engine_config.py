"""How DeepSpeed is asked for an engine: precision, ZeRO, optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch.nn import Module

from llm_trainer.config import Pretrain, ResolvedOptimizer, TrainingSettings
from llm_trainer.models.parameters import decays, tag_for_muon
from llm_trainer.runtime.instructions import has_matrix_unit

RATE_SHARE = "rate_share"  # of a group: factor of the learning rate
BUCKET = 500_000_000  # elements of gradients that are reduced at a time, at most: DeepSpeed's own default


def computes_in_bfloat16(settings: TrainingSettings, device: torch.device) -> bool:
    """Whether a stage's products are in bfloat16: for every stage, of ours and on TRL's trainers, decided here."""
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))  # an emulated one is slower than float32
    return has_matrix_unit()


def parameter_groups(
    module: Module, optimizer: ResolvedOptimizer, narrowed: AbstractSet[int] = frozenset(), ratio: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Weight decay on matrices only, see `parameters.decays`. DeepSpeed tells groups with experts apart by name.

    ``narrowed``: identities of the weights whose rate is multiplied by ``ratio``, see `models/width.py`.
    """
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if narrow := [parameter for _, parameter in trained if id(parameter) in narrowed]:
        decay = optimizer.weight_decay / ratio
        yield {"name": "narrowed", "params": narrow, "weight_decay": decay, RATE_SHARE: ratio}
    trained = [(name, parameter) for name, parameter in trained if id(parameter) not in narrowed]
    matrices = [parameter for name, parameter in trained if decays(name, parameter)]
    vectors = [parameter for name, parameter in trained if not decays(name, parameter)]
    yield {"name": "matrices", "params": matrices, "weight_decay": optimizer.weight_decay}
    if vectors:
        yield {"name": "vectors", "params": vectors, "weight_decay": 0.0}


def deepspeed_config(
    settings: TrainingSettings,
    device: torch.device,
    accumulation_steps: int,
    optimizer: ResolvedOptimizer | None = None,
    *,
    bfloat16: bool,
    learning: int = BUCKET,
) -> dict[str, Any]:
    """``learning``: how many elements do. DeepSpeed makes a bucket anew for each step: a GPU holds all of it, and on a
    CPU, where no freed memory is that large, the kernel zeroes what is used of it.
    """
    optimizer = optimizer or settings.optimizer
    muon = optimizer.type == "muon"
    cuda = device.type == "cuda"
    half = bfloat16 and cuda
    stage = actual_zero_stage(settings, half=half)
    return {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        **float32_gradients(half=half),
        # With ZeRO 1 to 3 DeepSpeed would clip what Muon has made of the gradient, whose size does not depend on it.
        "gradient_clipping": 0.0 if muon else optimizer.gradient_clipping,
        "optimizer": optimizer_config(optimizer),
        "bf16": {"enabled": half, **({"check_grad_overflow": True} if half else {})},
        "zero_optimization": {
            "stage": stage,
            "contiguous_gradients": True,
            "reduce_bucket_size": min(BUCKET, learning),
            "overlap_comm": cuda,
            # Muon orthogonalises whole matrices: ZeRO-3 may not scatter them before. With ZeRO 1 and 2 DeepSpeed's
            # scatter is an all-reduce of a copy (docs/figures.md); of experts it has no other.
            "reduce_scatter": not muon and (cuda or stage == 3 or expert_parallel(settings) > 1),
            "stage3_param_persistence_threshold": 100_000 if cuda else 0,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
    }


def expert_parallel(settings: TrainingSettings) -> int:
    return settings.expert_parallel if isinstance(settings, Pretrain) else 1


def float32_gradients(*, half: bool) -> dict[str, Any]:
    """How gradients are added up over micro-batches and ranks; `half`: of weights in bfloat16.

    In bfloat16, which has 8 bits, the 257th of equal parts is lost.
    """
    return {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"} if half else {}


def actual_zero_stage(settings: TrainingSettings, *, half: bool) -> int:
    """Without ZeRO, DeepSpeed adds up what is in bfloat16 in bfloat16: ZeRO 1 computes the same otherwise."""
    return max(1, settings.zero_stage) if half else settings.zero_stage


def mend_deepspeed() -> None:
    """Before an engine is made: which parameters Muon takes is ours to say."""
    import deepspeed

    deepspeed.set_optimizer_flags = tag_for_muon


def peak_of(optimizer: ResolvedOptimizer, group: Mapping[str, Any]) -> float:
    """The peak learning rate of a group of parameters, for which Muon or AdamW is."""
    if group.get("use_muon", False):
        return optimizer.muon_learning_rate
    return optimizer.learning_rate * float(group.get(RATE_SHARE, 1.0))


def optimizer_config(optimizer: ResolvedOptimizer) -> dict[str, Any]:
    adam = {"betas": [optimizer.beta1, optimizer.beta2], "eps": optimizer.epsilon, "torch_adam": True}
    if optimizer.type != "muon":
        # torch's fused kernel reads and writes each weight once, on CPU too; DeepSpeed's own has to be compiled
        return {"type": "AdamW", "params": {"lr": optimizer.learning_rate, "fused": True, **adam}}
    rates = {"muon_lr": optimizer.muon_learning_rate, "adam_lr": optimizer.learning_rate}
    return {"type": "Muon", "params": {"lr": optimizer.learning_rate, "momentum": 0.95, **rates, **adam}}
