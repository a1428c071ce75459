"""How DeepSpeed is asked for an engine: precision, ZeRO, optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from llm_trainer.config import ResolvedOptimizer, TrainingSettings


def computes_in_bfloat16(settings: TrainingSettings, device: torch.device) -> bool:
    """Whether a stage's products are in bfloat16: for every stage, of ours and on TRL's trainers, decided here."""
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text()


def parameter_groups(module: Module, optimizer: ResolvedOptimizer) -> Iterator[dict[str, Any]]:
    """Weight decay on matrices only, not on norms and biases. DeepSpeed tells groups with experts apart by name."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    matrices = [parameter for parameter in trained if parameter.dim() >= 2]
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
) -> dict[str, Any]:
    optimizer = optimizer or settings.optimizer
    muon = optimizer.type == "muon"
    cuda = device.type == "cuda"
    return {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        # With ZeRO 1 to 3 DeepSpeed would clip what Muon has made of the gradient, whose size does not depend on it.
        "gradient_clipping": 0.0 if muon else optimizer.gradient_clipping,
        "optimizer": optimizer_config(optimizer),
        "bf16": {"enabled": bfloat16 and cuda, **({"check_grad_overflow": True} if bfloat16 and cuda else {})},
        "zero_optimization": {
            "stage": settings.zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": cuda,
            # Muon orthogonalises whole matrices: ZeRO-3 may not scatter them before
            "reduce_scatter": not muon,
            "stage3_param_persistence_threshold": 100_000 if cuda else 0,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
    }


def mend_deepspeed() -> None:
    """Before an engine is made.

    With ZeRO 0 in bfloat16 DeepSpeed makes the optimizer's state by a step of zeros, which AdamW's bias correction
    counts: the first steps come out a quarter too small, and a run learns less all along. AdamW makes it by itself.
    """
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer

    FP16_UnfusedOptimizer.initialize_optimizer_states = lambda _: None


def peak_of(optimizer: ResolvedOptimizer, *, muon: bool) -> float:
    """The peak learning rate of the parameters that Muon, or AdamW, is for."""
    return optimizer.muon_learning_rate if muon else optimizer.learning_rate


def optimizer_config(optimizer: ResolvedOptimizer) -> dict[str, Any]:
    adam = {"betas": [optimizer.beta1, optimizer.beta2], "eps": optimizer.epsilon, "torch_adam": True}
    if optimizer.type != "muon":
        # torch's fused kernel reads and writes each weight once, on CPU too; DeepSpeed's own has to be compiled
        return {"type": "AdamW", "params": {"lr": optimizer.learning_rate, "fused": True, **adam}}
    rates = {"muon_lr": optimizer.muon_learning_rate, "adam_lr": optimizer.learning_rate}
    return {"type": "Muon", "params": {"lr": optimizer.learning_rate, "momentum": 0.95, **rates, **adam}}
