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
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llm_trainer.config import Lora, StageConfig
from llm_trainer.data.rendering import stop_tokens
from llm_trainer.models.adapter import Base, check_start
from llm_trainer.models.attention import Machine, choose
from llm_trainer.models.merging import Merging
from llm_trainer.models.placement import Placement
from llm_trainer.models.targets import target_modules, target_parameters
from llm_trainer.models.weights import load, read_config, without_weights

State = dict[str, torch.Tensor]


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
    """The adapter alone, read back; raises RuntimeError if a tensor differs. `state` has what is trained.

    ``before``: the adapter that was merged into the base when the stage began; what is written is both.
    """
    model.peft_config[model.active_adapter].base_model_name_or_path = where(base, folder)
    expected = get_peft_model_state_dict(model, state_dict=state)
    if before is None:
        model.save_pretrained(folder, state_dict=state)
    else:
        expected = joined(before, model.peft_config[model.active_adapter], expected, where(base, folder), folder)
    tokenizer.save_pretrained(folder)
    write_ends(model.get_base_model(), tokenizer, folder)
    loaded = load_peft_weights(str(folder), device="cpu")
    if set(loaded) != set(expected):
        raise RuntimeError(f"the exported adapter differs in {sorted(set(loaded) ^ set(expected))}")
    for name, tensor in loaded.items():
        if not torch.equal(tensor, expected[name].cpu().to(tensor.dtype)):
            raise RuntimeError(f"the exported adapter differs from the trained one in {name}")


def write_ends(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The ends of a turn that the adapter has learned, which its base may not know; llm_server tells vLLM of them."""
    if base.can_generate():
        known = base.generation_config.eos_token_id
        ends = stop_tokens(tokenizer, known)
        GenerationConfig(eos_token_id=ends if len(ends) > 1 else ends[0]).save_pretrained(folder)


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
def merged(base: Path, adapter: Path, placement: Placement | None = None) -> PreTrainedModel:
    """The base with the adapter in its weights; a reward model if the adapter is of one, with the adapter's head.

    Each weight is of the base's type, and then placed. Raises RuntimeError as `Merging` does, and as `weights.load`
    does.
    """
    placement = placement or Placement(torch.device("cpu"), None, spread=False)
    config = read_config(base)
    how: dict[str, Any] = {"attn_implementation": choose(config, Machine.cpu(), half=False).implementation}
    kind, new = AutoModelForCausalLM, set[str]()
    if LoraConfig.from_pretrained(adapter).task_type == "SEQ_CLS":
        kind, new, how["num_labels"] = AutoModelForSequenceClassification, {"score.weight"}, 1
        config.num_labels = 1
    merging = Merging(without_weights(base, config, kind), adapter)
    model = load(kind, base, new=new, placement=placement, change=merging, **{"dtype": "auto", **how})
    merging.finish(model)
    return model
