"""A result: a folder that transformers and vLLM load, with a manifest of its files and a digest."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from llm_trainer.checkpoint.fence import Fence, temporary_name
from llm_trainer.checkpoint.files import (
    MANIFEST,
    FileRecord,
    FolderManifest,
    content_files,
    flush_folder,
    record,
    write_durably,
)
from llm_trainer.config import StageConfig, TrainingSettings, settings_of
from llm_trainer.data.rendering import stop_tokens
from llm_trainer.models.adapter import Base, base_of, find_base, started_from
from llm_trainer.models.card import write_card
from llm_trainer.models.engine import Engine
from llm_trainer.models.placement import Placement, shape_of
from llm_trainer.models.shards import Weights, to_write, write_weights
from llm_trainer.models.weights import check_folder, weight_headers
from llm_trainer.protocol import Result
from llm_trainer.runtime.errors import ConfigurationError, DataError, StageError
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.runtime.removal import remove

KEEP_PUBLISHED = 3  # a serving may still roll from an older one

Kind = Literal["model", "rewardModel", "adapter"]
State = dict[str, torch.Tensor]  # whole tensors on CPU
Write = Callable[[Path], list[FileRecord]]  # a collective


def publish_result(
    config: StageConfig, settings: TrainingSettings, step: int, engine: Engine, tokenizer: PreTrainedTokenizerBase
) -> Result | None:
    """What the stage yields: a model, a reward model, an adapter, or the model with the adapter merged.

    A collective; the result is known on rank 0. Raises StageError for weights that are not finite.
    """
    with engine.at_rest():
        write = partial(write_model, tokenizer, scores=settings.yields == "rewardModel")
        if settings.lora is None:
            whole = partial(write, engine.weights())
            return publish(config, engine.group, step, settings.yields, whole)
        from llm_trainer.models.low_rank import write_adapter

        assert config.model  # noqa: S101 -- every stage that trains has one
        before, root = started_from(config), config.volumes_root
        base = base_of(before, root) if before else find_base(config.model.uri or "", root)
        state = engine.trained_state()
        refuse_not_finite(state)
        adapter = partial(write_adapter, engine.model, state, tokenizer, base, before)
        if not settings.lora.merge:
            return publish(config, engine.group, step, "adapter", by_one(engine.group, adapter), base)
        merge = partial(write_merged, engine.group, adapter, write, base.folder)
        return publish(config, engine.group, step, settings.yields, merge)


def by_one(group: ProcessGroup, write: Callable[[Path], list[FileRecord] | None]) -> Write:
    """Rank 0 writes alone."""
    return lambda folder: (write(folder) or []) if group.is_first else []


def publish(
    config: StageConfig, group: ProcessGroup, step: int, kind: Kind, write: Write, base: Base | None = None
) -> Result | None:
    """Let `write` fill `stages/STAGE/results/step-…`, which appears whole or not at all; a collective.

    ``write`` gives what it has hashed and flushed itself; rank 0 does it for the rest. Raises as `Fence.check` does.
    """
    results = Path(config.stage_folder) / "results"
    final = results / f"step-{step:08d}"
    temporary = results / temporary_name(config, final.name)
    if group.is_first:
        remove(temporary)
        temporary.mkdir(parents=True)
    group.barrier()
    written = {known.path: known for known in write(temporary)}
    if not group.is_first:
        return None
    if settings := settings_of(config):
        write_card(temporary, config, settings, step, kind)
    manifest = FolderManifest(
        kind=kind,
        step=step,
        attempt=config.attempt,
        base=base.uri if base else None,
        base_digest=base.digest if base else None,
        files=all_records(temporary, written),
    )
    write_durably(temporary / MANIFEST, manifest.model_dump_json(by_alias=True, indent=1))
    Fence(config).check()
    put_in_place(temporary, final)
    return Result(
        uri=f"{config.run_uri}/stages/{config.stage}/results/{final.name}",
        digest=manifest.digest(),
        kind=kind,
        step=step,
        base=manifest.base,
        base_digest=manifest.base_digest,
    )


def all_records(folder: Path, written: Mapping[str, FileRecord]) -> list[FileRecord]:
    """Of each file in the folder; those that nobody has hashed yet are read."""
    found = dict(written)
    for file in content_files(folder):
        if (name := str(file.relative_to(folder))) not in found:
            file.chmod(0o644)  # safetensors keeps its file to one user, and whoever serves it may be another
            found[name] = record(file, folder)
    return [found[name] for name in sorted(found, key=Path)]


def put_in_place(temporary: Path, final: Path) -> None:
    """It appears whole, and the oldest go."""
    remove(final)
    temporary.rename(final)
    flush_folder(final.parent)
    # by time and not by step: a stage that began anew with other settings publishes smaller steps again
    others = sorted((other for other in final.parent.glob("step-*") if other != final), key=published_at)
    for old in others[: -(KEEP_PUBLISHED - 1)]:
        remove(old)


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


def write_model(
    tokenizer: PreTrainedTokenizerBase, weights: Weights, folder: Path, *, scores: bool
) -> list[FileRecord]:
    """A language model, or one that `scores`; a collective of the weights' group.

    Raises RuntimeError if a reader would find other weights than the model's.
    """
    written = write_weights(weights, folder)
    if weights.group is None or weights.group.is_first:
        write_config(weights.model, tokenizer, folder)
        verify(weights, folder, scores=scores)
    return written


def write_merged(
    group: ProcessGroup,
    write_adapter: Callable[[Path], None],
    write: Callable[[Weights, Path], list[FileRecord]],
    base: Path,
    folder: Path,
) -> list[FileRecord]:
    """What `write_adapter` gives, in the weights of its base, by `write`; a collective, spread over the processes."""
    from llm_trainer.models.low_rank import merged

    adapter = folder / "adapter"
    if group.is_first:
        write_adapter(adapter)
    group.barrier()
    model = merged(base, adapter, Placement(torch.device("cpu"), None, spread=group.world_size > 1))
    group.barrier()
    if group.is_first:
        shutil.rmtree(adapter)
    return write(Weights(model, model.state_dict(keep_vars=True), group), folder)


def write_config(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """All but the weights; whoever generates by it, transformers or vLLM, stops where the model has learned to."""
    if model.can_generate():
        known = model.generation_config.eos_token_id
        if len(ends := stop_tokens(tokenizer, known)) > 1:
            model.generation_config.eos_token_id = ends
        model.generation_config = consistent(model.generation_config)
        model.generation_config.save_pretrained(folder)
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def consistent(generation: GenerationConfig) -> GenerationConfig:
    """As transformers saves it, which refuses what many models bring: a temperature, and nothing that says to sample.

    Whoever serves the model takes the temperature, so it is sampled. What is wrong otherwise is left out.
    """
    made = copy.deepcopy(generation)
    for change in ({}, {"do_sample": True}):
        made.update(**change)
        try:
            made.validate(strict=True)
        except ValueError:
            continue
        return made
    print(f"generation_config.json: {generation.to_diff_dict()} is not consistent; its ends are kept alone", flush=True)
    return GenerationConfig(eos_token_id=generation.eos_token_id)


def verify(weights: Weights, folder: Path, *, scores: bool) -> None:
    """By the files' headers, as transformers reads them: names, shapes and types. The numbers are hashed as they go."""
    try:
        read, unexpected = check_folder(folder, scores=scores)
    except (DataError, ConfigurationError) as error:
        raise RuntimeError(f"the exported model is not whole: {error}") from error
    expected = {name: shape_of(tensor) for name, tensor in weights.state.items()}
    found = {name: tensor.shape for name, tensor in read.state_dict().items()}
    if unexpected or found != expected:
        other = sorted({*unexpected, *(found.keys() ^ expected.keys())}) or [
            n for n in found if found[n] != expected[n]
        ]
        raise RuntimeError(f"the exported model differs from the trained one in {', '.join(other[:4])}")
    types = {weights.state[name].dtype for name in to_write(weights.model, weights.state)}
    if (stored := {header.dtype for _, header in weight_headers(folder)}) != types:
        raise RuntimeError(f"the exported model is of {stored} and the trained one of {types}")
