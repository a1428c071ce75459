"""A result: a folder that transformers and vLLM load, with a manifest of its files and a digest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from llm_trainer.checkpoint.files import MANIFEST, FolderManifest, content_files, flush_folder, record, write_durably
from llm_trainer.protocol import Result

KEEP_PUBLISHED = 3  # a serving may still roll from an older one


def export(
    model: PreTrainedModel,
    state: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    run_uri: str,
    run_folder: Path,
    stage: str,
    step: int,
    attempt: int,
    base: str | None = None,
) -> Result:
    """Write `stages/STAGE/results/step-…` once, on rank 0, and read it back. `state` holds whole tensors on CPU."""
    results = run_folder / "stages" / stage / "results"
    temporary, final = results / f".tmp-step-{step:08d}", results / f"step-{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.save_pretrained(temporary, state_dict=state, safe_serialization=True)
    tokenizer.save_pretrained(temporary)
    for file in content_files(temporary):
        file.chmod(0o644)  # safetensors keeps its file to one user, and whoever serves it may be another
    verify(temporary, state)
    manifest = FolderManifest(
        kind="model", step=step, attempt=attempt, base=base,
        files=[record(file, temporary) for file in content_files(temporary)],
    )  # fmt: skip
    write_durably(temporary / MANIFEST, manifest.model_dump_json(by_alias=True, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    flush_folder(results)
    for old in sorted(results.glob("step-*"))[:-KEEP_PUBLISHED]:
        shutil.rmtree(old)
    uri = f"{run_uri}/stages/{stage}/results/{final.name}"
    return Result(uri=uri, digest=manifest.digest(), kind="model", step=step, base=base)


def verify(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Load the folder as a user would and compare every tensor; raises RuntimeError."""
    loaded: dict[str, Any] = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    for name, tensor in loaded.items():
        if name in state and not torch.equal(tensor, state[name].to(tensor.dtype)):
            raise RuntimeError(f"the exported model differs from the trained one in {name}")
