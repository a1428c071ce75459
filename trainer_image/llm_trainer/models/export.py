"""A result: a folder that transformers and vLLM load, with a manifest of its files and a digest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llm_trainer.checkpoint.fence import Fence, temporary_name
from llm_trainer.checkpoint.files import MANIFEST, FolderManifest, content_files, flush_folder, record, write_durably
from llm_trainer.config import StageConfig, TrainingSettings, settings_of
from llm_trainer.data.rendering import stop_tokens
from llm_trainer.models.adapter import Base, base_of, find_base, started_from
from llm_trainer.models.card import write_card
from llm_trainer.models.weights import load
from llm_trainer.protocol import Result
from llm_trainer.runtime.errors import StageError
from llm_trainer.runtime.removal import remove

KEEP_PUBLISHED = 3  # a serving may still roll from an older one

Kind = Literal["model", "rewardModel", "adapter"]
State = dict[str, torch.Tensor]  # whole tensors on CPU


def publish_result(
    config: StageConfig,
    settings: TrainingSettings,
    step: int,
    model: PreTrainedModel,
    state: State,
    tokenizer: PreTrainedTokenizerBase,
) -> Result:
    """What the stage yields: a model, a reward model, an adapter, or the model with the adapter merged; on rank 0.

    Raises StageError for weights that are not finite.
    """
    refuse_not_finite(state)
    write = write_reward_model if settings.yields == "rewardModel" else write_model
    if settings.lora is None:
        return publish(config, step, settings.yields, partial(write, model, state, tokenizer))
    from llm_trainer.models.low_rank import write_adapter

    assert config.model  # noqa: S101 -- every stage that trains has one
    before = started_from(config)
    base = base_of(before, config.volumes_root) if before else find_base(config.model.uri or "", config.volumes_root)
    adapter = partial(write_adapter, model, state, tokenizer, base, before)
    if not settings.lora.merge:
        return publish(config, step, "adapter", adapter, base)
    whole = partial(write_merged, adapter, write, base.folder, tokenizer)
    return publish(config, step, settings.yields, whole)


def publish(
    config: StageConfig, step: int, kind: Kind, write: Callable[[Path], None], base: Base | None = None
) -> Result:
    """Let `write` fill `stages/STAGE/results/step-…`, which appears whole or not at all; on rank 0 only.

    Raises as `Fence.check` does.
    """
    results = Path(config.stage_folder) / "results"
    final = results / f"step-{step:08d}"
    temporary = results / temporary_name(config, final.name)
    remove(temporary)
    temporary.mkdir(parents=True)
    write(temporary)
    if settings := settings_of(config):
        write_card(temporary, config, settings, step, kind)
    for file in content_files(temporary):
        file.chmod(0o644)  # safetensors keeps its file to one user, and whoever serves it may be another
    manifest = FolderManifest(
        kind=kind,
        step=step,
        attempt=config.attempt,
        base=base.uri if base else None,
        base_digest=base.digest if base else None,
        files=[record(file, temporary) for file in content_files(temporary)],
    )
    write_durably(temporary / MANIFEST, manifest.model_dump_json(by_alias=True, indent=1))
    Fence(config).check()
    remove(final)
    temporary.rename(final)
    flush_folder(results)
    # by time and not by step: a stage that began anew with other settings publishes smaller steps again
    others = sorted((other for other in results.glob("step-*") if other != final), key=published_at)
    for old in others[: -(KEEP_PUBLISHED - 1)]:
        remove(old)
    uri = f"{config.run_uri}/stages/{config.stage}/results/{final.name}"
    return Result(
        uri=uri,
        digest=manifest.digest(),
        kind=kind,
        step=step,
        base=manifest.base,
        base_digest=manifest.base_digest,
    )


def refuse_not_finite(state: State) -> None:
    """A step with a finite gradient may still make weights that aren't, by a learning rate without measure."""
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise StageError(
                f"the model is not published: {name} holds numbers that are not finite; lower optimizer.learningRate"
            )


def published_at(result: Path) -> tuple[int, str]:
    manifest = result / MANIFEST
    return (manifest.stat().st_mtime_ns if manifest.exists() else 0), result.name


def write_model(model: PreTrainedModel, state: State, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A language model, read back as a user would read it; raises RuntimeError if a tensor differs."""
    save(model, state, tokenizer, folder)
    verify(load(AutoModelForCausalLM, folder, dtype="auto").state_dict(), state)


def write_reward_model(model: PreTrainedModel, state: State, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A model with a head that scores, read back; raises RuntimeError if a tensor differs or is missing."""
    save(model, state, tokenizer, folder)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto", output_loading_info=True)
    if info["missing_keys"] or info["unexpected_keys"]:
        raise RuntimeError(f"the exported reward model lacks {info['missing_keys']} or has {info['unexpected_keys']}")
    verify(loaded.state_dict(), state)


def write_merged(
    write_adapter: Callable[[Path], None],
    write: Callable[..., None],
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> None:
    """What `write_adapter` gives, in the weights of its base, by `write`."""
    from llm_trainer.models.low_rank import merged

    adapter = folder / "adapter"
    write_adapter(adapter)
    model = merged(base, adapter)
    shutil.rmtree(adapter)
    write(model, model.state_dict(), tokenizer, folder)


def save(model: PreTrainedModel, state: State, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Whoever generates by the folder, transformers or vLLM, stops where the model has learned to."""
    if model.can_generate():
        known = model.generation_config.eos_token_id
        if len(ends := stop_tokens(tokenizer, known)) > 1:
            model.generation_config.eos_token_id = ends
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def verify(loaded: dict[str, Any], state: State) -> None:
    for name, tensor in loaded.items():
        if name in state and not torch.equal(tensor, state[name].to(tensor.dtype)):
            raise RuntimeError(f"the exported model differs from the trained one in {name}")
