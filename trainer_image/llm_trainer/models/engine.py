"""DeepSpeed's engine as a pretrain stage uses it: ZeRO 0 to 3, AdamW or Muon, a learning rate set from outside."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from llm_trainer.config import Pretrain, PretrainOptimizer
from llm_trainer.models.experts import Routing, experts_per_token, routing
from llm_trainer.models.packing import STATE_SPACE, unpack
from llm_trainer.runtime.process_group import ProcessGroup


class Engine:
    """One model in training. Every method is called by all ranks together."""

    def __init__(
        self, model: PreTrainedModel, settings: Pretrain, group: ProcessGroup, accumulation_steps: int
    ) -> None:
        import deepspeed

        self.group, self.settings = group, settings
        self._experts_per_token = experts_per_token(model.config)
        self.bfloat16 = computes_in_bfloat16(settings, group.device)
        if group.device.type == "cpu":
            # A pod has no compiler; DeepSpeed's Muon kernels would ask for one.
            torch.compiler.set_stance("force_eager")
        self._engine, _, _, _ = deepspeed.initialize(
            model=model,
            model_parameters=list(parameter_groups(model, settings.optimizer)),
            config=deepspeed_config(settings, group.device, accumulation_steps, bfloat16=self.bfloat16),
        )

    @property
    def model(self) -> PreTrainedModel:
        model: PreTrainedModel = self._engine.module
        return model

    def logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(batch, length, vocabulary) from two of (batch, length); a document begins where positions restart."""
        return self._forward(tokens, positions)[0]

    def logits_and_routing(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, Routing | None]:
        """As `logits`; and what the routers did, None for a model without experts."""
        if self._experts_per_token is None:
            return self.logits(tokens, positions), None
        logits, router_logits = self._forward(tokens, positions, output_router_logits=True)
        return logits, routing(router_logits, self._experts_per_token)

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, **wanted: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Logits, and what the routers of the layers said of each token if that is wanted."""
        if self.model.config.model_type not in STATE_SPACE:
            with self._autocast():
                output = self._engine(input_ids=tokens, position_ids=positions, use_cache=False, **wanted)
            return output.logits, output.get("router_logits") or ()
        documents = unpack(tokens, positions)
        with self._autocast():
            output = self._engine(input_ids=documents.tokens, use_cache=False, **wanted)
        routers = tuple(layer[documents.there.flatten()] for layer in output.get("router_logits") or ())
        return documents.pack(output.logits), routers

    def backward(self, loss: torch.Tensor) -> None:
        """One micro-batch; the last one of a step also sums the gradients over the ranks."""
        self._engine.backward(loss)

    def set_learning_rate(self, share: float) -> None:
        """As a share of the peak, for the next step."""
        for group in self._engine.optimizer.param_groups:
            muon = group.get("use_muon", False)
            group["lr"] = share * (self.settings.optimizer.muon_learning_rate if muon else self._peak)

    def step(self) -> bool:
        """After each micro-batch; False if the step was left out because a gradient is not finite."""
        last = self._engine.is_gradient_accumulation_boundary()
        skipped = last and self.settings.zero_stage == 0 and self._drop_bad_gradients()
        self._engine.step()
        return not skipped and (not last or self._engine.was_step_applied())

    @property
    def gradient_norm(self) -> float:
        """Of the last step, before clipping."""
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else math.nan

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag="engine", exclude_frozen_parameters=False)

    def load(self, folder: Path) -> None:
        loaded, _ = self._engine.load_checkpoint(str(folder), tag="engine")
        if loaded is None:
            raise RuntimeError(f"DeepSpeed found nothing to load in {folder}")

    def whole_state(self) -> dict[str, torch.Tensor] | None:
        """All weights, on CPU, on rank 0; None elsewhere."""
        if self.settings.zero_stage == 3:
            state: dict[str, torch.Tensor] | None = self._engine._zero3_consolidated_16bit_state_dict()
            return state
        if not self.group.is_first:
            return None
        return {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}

    @property
    def _peak(self) -> float:
        return self.settings.optimizer.learning_rate

    def _autocast(self) -> AbstractContextManager[Any]:
        """On CPU bfloat16 is for the products only; on CUDA DeepSpeed keeps the weights in it."""
        if self.bfloat16 and self.group.device.type == "cpu":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return nullcontext()

    def _drop_bad_gradients(self) -> bool:
        """ZeRO 1 to 3 leave such a step out by themselves, ZeRO 0 would put NaN into the weights."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        if finite:
            return False
        for parameter in self.model.parameters():
            parameter.grad = None
        return True


def computes_in_bfloat16(settings: Pretrain, device: torch.device) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text()


def parameter_groups(model: PreTrainedModel, optimizer: PretrainOptimizer) -> Iterator[dict[str, Any]]:
    """Weight decay on matrices only, not on norms and biases."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    yield {"params": matrices, "weight_decay": optimizer.weight_decay}
    if vectors:
        yield {"params": vectors, "weight_decay": 0.0}


def deepspeed_config(
    settings: Pretrain, device: torch.device, accumulation_steps: int, *, bfloat16: bool
) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        # With ZeRO 1 to 3 DeepSpeed would clip what Muon has made of the gradient, whose size does not depend on it.
        "gradient_clipping": 0.0 if settings.optimizer.type == "muon" else settings.optimizer.gradient_clipping,
        "optimizer": optimizer_config(settings.optimizer),
        "bf16": {"enabled": bfloat16 and cuda, **({"check_grad_overflow": True} if bfloat16 and cuda else {})},
        "zero_optimization": {
            "stage": settings.zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": cuda,
            # Muon orthogonalises whole matrices: ZeRO-3 may not scatter them before
            "reduce_scatter": settings.optimizer.type != "muon",
            "stage3_param_persistence_threshold": 100_000 if cuda else 0,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
    }


def optimizer_config(optimizer: PretrainOptimizer) -> dict[str, Any]:
    adam = {"betas": [optimizer.beta1, optimizer.beta2], "eps": optimizer.epsilon, "torch_adam": True}
    if optimizer.type == "adamw":
        return {"type": "AdamW", "params": {"lr": optimizer.learning_rate, **adam}}
    rates = {"muon_lr": optimizer.muon_learning_rate, "adam_lr": optimizer.learning_rate}
    return {"type": "Muon", "params": {"lr": optimizer.learning_rate, "momentum": 0.95, **rates, **adam}}
