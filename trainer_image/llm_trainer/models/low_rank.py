"""Low-rank adapters: how peft is asked for one, how it is written, and how it becomes part of its base again."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME, load_peft_weights
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llm_trainer.config import Lora, StageConfig
from llm_trainer.models.adapter import Base, check_start
from llm_trainer.models.attention import Machine, choose
from llm_trainer.models.targets import target_modules, target_parameters
from llm_trainer.models.weights import load, read_config

State = dict[str, torch.Tensor]

# Of logits, base with adapter against merged, relative to the largest. Measured in float32 on random llamas of 30 and
# 60 layers: 2e-6 whatever the adapter; with weights 5 to 15 times as large, or an adapter stronger than its base, up to
# 5e-4 of what the adapter does. Without one layer's projection: at least 1e-3 of that, mostly 1e-2 to 1e-1.
ROUNDING, SHARE = 1e-5, 1e-3


def adapted(model: PreTrainedModel, config: StageConfig, lora: Lora, task: str, head: str | None = None) -> PeftModel:
    """The model with a new adapter, which alone is trained. Raises ConfigurationError."""
    check_start(config, lora, target_modules(model, lora))
    wrapped: PeftModel = get_peft_model(model, lora_config(model, lora, task, head))
    return wrapped


def lora_config(model: PreTrainedModel, lora: Lora, task: str, head: str | None = None) -> LoraConfig:
    """`task` is peft's name of it; `head` a module that is trained and kept whole, such as a reward model's.

    Raises ConfigurationError for what the model doesn't have.
    """
    return LoraConfig(
        task_type=task,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules(model, lora),
        target_parameters=target_parameters(model, lora),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        modules_to_save=[head] if head else None,
    )


def write_adapter(
    model: PeftModel,
    state: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    base: Base,
    before: Path | None,
    folder: Path,
) -> None:
    """The adapter alone, read back; raises RuntimeError if a tensor differs. `state` may hold the base as well.

    ``before``: the adapter that was merged into the base when the stage began; what is written is both.
    """
    model.peft_config[model.active_adapter].base_model_name_or_path = where(base, folder)
    expected = get_peft_model_state_dict(model, state_dict=state)
    if before is None:
        model.save_pretrained(folder, state_dict=state)
    else:
        expected = joined(before, model.peft_config[model.active_adapter], expected, where(base, folder), folder)
    tokenizer.save_pretrained(folder)
    loaded = load_peft_weights(str(folder), device="cpu")
    if set(loaded) != set(expected):
        raise RuntimeError(f"the exported adapter differs in {sorted(set(loaded) ^ set(expected))}")
    for name, tensor in loaded.items():
        if not torch.equal(tensor, expected[name].cpu().to(tensor.dtype)):
            raise RuntimeError(f"the exported adapter differs from the trained one in {name}")


def joined(before: Path, config: LoraConfig, state: State, base: str, folder: Path) -> State:
    """Write one adapter that adds what two do: B₁A₁ + B₂A₂ is [B₁ B₂] times [A₁; A₂], of the sum of the ranks.

    Each B takes its scale in, so that that of the whole is 1. Raises RuntimeError if they adapt different modules.
    """
    first_config, first = LoraConfig.from_pretrained(before), load_peft_weights(str(before), device="cpu")
    if set(first) != set(state):
        raise RuntimeError(f"the adapter {before} and the stage's differ in {sorted(set(first) ^ set(state))}")
    whole = {}
    for name, second in state.items():
        one, two = first[name].float(), second.cpu().float()
        outer = ".lora_B." in name or ".lora_embedding_B" in name
        parts = (one * scale(first_config), two * scale(config)) if outer else (one, two)
        whole[name] = torch.cat(parts, dim=int(outer)).contiguous()
    rank = first_config.r + config.r
    merged_config = LoraConfig.from_pretrained(before)
    merged_config.r = merged_config.lora_alpha = rank
    merged_config.use_rslora = False
    merged_config.base_model_name_or_path = base
    merged_config.save_pretrained(folder)
    save_file(whole, folder / SAFETENSORS_WEIGHTS_NAME)
    return whole


def scale(config: LoraConfig) -> float:
    return float(config.lora_alpha) / (math.sqrt(config.r) if config.use_rslora else config.r)


def where(base: Base, folder: Path) -> str:
    """The base as an adapter's file tells it to whoever has mounted the claim: peft would write a pod's path.

    A path from the adapter's folder to the base's where one claim holds both, else the base's URI.
    """
    within = len(PurePosixPath(base.uri.removeprefix("pvc://")).parts) - 1  # of the claim
    if folder.is_relative_to(base.folder.parents[within - 1]):
        return os.path.relpath(base.folder, folder)  # the folder gets its name when it is whole, beside this one
    return base.uri


@torch.no_grad()
def merged(base: Path, adapter: Path) -> PreTrainedModel:
    """The base with the adapter in its weights; a reward model if the adapter is of one, with the adapter's head.

    Merged and compared in float32, by what a CPU computes by, whatever the stage computes by: in bfloat16 rounding
    moves the logits more than a wrong merge may. Each weight is of the base's type in the end. Raises RuntimeError if
    the logits are not those of base and adapter side by side, and as `weights.load` does.
    """
    how: dict[str, Any] = {"attn_implementation": choose(read_config(base), Machine.cpu(), half=False).implementation}
    if LoraConfig.from_pretrained(adapter).task_type == "SEQ_CLS":
        model = load(AutoModelForSequenceClassification, base, new={"score.weight"}, num_labels=1, dtype="auto", **how)
    else:
        model = load(AutoModelForCausalLM, base, dtype="auto", **how)
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    beside = PeftModel.from_pretrained(model.float(), adapter).eval()
    sample = torch.arange(1, 33).remainder(model.get_input_embeddings().num_embeddings)[None]
    before = beside(input_ids=sample).logits
    with beside.disable_adapter():
        effect = relative(beside(input_ids=sample).logits, before)
    whole: PreTrainedModel = beside.merge_and_unload()
    whole.requires_grad_(requires_grad=True)  # peft has frozen the base
    difference = relative(whole(input_ids=sample).logits, before)
    if not difference <= ROUNDING + SHARE * effect:
        raise RuntimeError(
            f"merging {adapter} into {base} moved the logits by {difference:.2e} of the largest, and the adapter moves "
            f"them by {effect:.2e}"
        )
    for name, tensor in whole.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(types[name])
    return whole


def relative(logits: torch.Tensor, to: torch.Tensor) -> float:
    """Their largest difference, of the largest."""
    return float((logits - to).abs().max() / to.abs().max())
