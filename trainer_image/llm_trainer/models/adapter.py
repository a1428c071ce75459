"""Low-rank adapters: how peft is asked for one, how it is written, and how it becomes part of its base again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llm_trainer.checkpoint.files import MANIFEST, read_manifest
from llm_trainer.config import Lora, StageConfig, local_path
from llm_trainer.models.targets import target_modules, target_parameters
from llm_trainer.runtime.errors import ConfigurationError

ADAPTER_FILE = "adapter_config.json"
TOLERANCE = 1e-5  # of logits, base with adapter against merged, relative to the largest


@dataclass(frozen=True)
class Base:
    """The model that an adapter belongs to."""

    uri: str
    folder: Path
    digest: str | None  # None for a folder that no training of ours has written


def find_base(uri: str, volumes_root: str) -> Base:
    folder = Path(local_path(uri, volumes_root))
    return Base(uri, folder, read_manifest(folder).digest() if (folder / MANIFEST).is_file() else None)


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_FILE).is_file()


def base_of(folder: Path, volumes_root: str) -> Base:
    """The base of an adapter that a stage has written.

    Raises ConfigurationError if it is not the one that the adapter was trained on.
    """
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    if manifest is None or manifest.base is None:
        raise ConfigurationError(f"the adapter {folder} does not say which model it belongs to; merge it into its base")
    base = find_base(manifest.base, volumes_root)
    if base.digest != manifest.base_digest:
        raise ConfigurationError(
            f"the adapter {folder} was trained on {manifest.base} with digest {manifest.base_digest}, which now has "
            f"{base.digest}; restore that model or train the adapter again"
        )
    return base


def adapted(model: PreTrainedModel, config: StageConfig, lora: Lora, task: str, head: str | None = None) -> PeftModel:
    """The model with a new adapter, which alone is trained. Raises ConfigurationError."""
    check_start(config)
    wrapped: PeftModel = get_peft_model(model, lora_config(model, lora, task, head))
    return wrapped


def check_start(config: StageConfig) -> None:
    """Raises ConfigurationError for a start that an adapter can't belong to."""
    folder = config.model_folder
    if folder is None:
        raise ConfigurationError("lora: a model from scratch has no weights to adapt; remove it")
    if is_adapter(Path(folder)):
        raise ConfigurationError(
            f"lora: the stage starts from an adapter, {folder}, and an adapter needs a whole model as its base; set "
            "lora.merge in the stage before"
        )


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
    model: PeftModel, state: dict[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """The adapter alone, read back; raises RuntimeError if a tensor differs. `state` may hold the base as well."""
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    expected = get_peft_model_state_dict(model, state_dict=state)
    loaded = load_peft_weights(str(folder), device="cpu")
    if set(loaded) != set(expected):
        raise RuntimeError(f"the exported adapter differs in {sorted(set(loaded) ^ set(expected))}")
    for name, tensor in loaded.items():
        if not torch.equal(tensor, expected[name].cpu().to(tensor.dtype)):
            raise RuntimeError(f"the exported adapter differs from the trained one in {name}")


@torch.no_grad()
def merged(base: Path, adapter: Path, **loading: Any) -> PreTrainedModel:
    """The base with the adapter in its weights; a reward model if the adapter is of one, with the adapter's head.

    Raises RuntimeError if its logits are not those of base and adapter side by side.
    """
    scores = LoraConfig.from_pretrained(adapter).task_type == "SEQ_CLS"
    kind = partial(AutoModelForSequenceClassification.from_pretrained, num_labels=1) if scores else None
    model = PeftModel.from_pretrained((kind or AutoModelForCausalLM.from_pretrained)(base, **loading), adapter).eval()
    sample = torch.arange(1, 33).remainder(model.config.vocab_size)[None]
    before = model(input_ids=sample).logits
    whole: PreTrainedModel = model.merge_and_unload()
    whole.requires_grad_(requires_grad=True)  # peft has frozen the base
    difference = float((whole(input_ids=sample).logits - before).abs().max() / before.abs().max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"merging {adapter} into {base} moved the logits by {difference:.2e} of the largest")
    return whole
