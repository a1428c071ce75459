"""How much of a pod's memory the KV cache may take on CPU, where vLLM must be told."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_server.arguments import OTHER_SIZES, TENSOR, first_of, number_of
from llm_server.model_folder import read_config

GIB = 2**30
# Three processes that have imported all, and what a step needs; measured 1.1 GiB with a tiny model.
PROCESSES = 3 * GIB // 2
WORKER = GIB // 2  # each further one
SPARE = 0.9  # of the limit: the page cache's and the allocator's share stays
LEAST = GIB // 16
WITHOUT_A_LIMIT = GIB
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/memory")  # of version 2 and 1
LIMITS = (f"{CGROUPS[0]}/memory.max", f"{CGROUPS[1]}/memory.limit_in_bytes")
UNLIMITED = 2**60  # how cgroup v1 says that there is none
BYTES = {"float32": 4, "float": 4, "float64": 8, "bfloat16": 2, "float16": 2, "half": 2}
STORED = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # of safetensors; other types are not converted
HEADER_BYTES = 100 * 2**20  # at most, as safetensors has it
NO_WEIGHTS = ("training_args.bin", "optimizer.bin")
GIVEN = ("--kv-cache-memory-bytes", "--gpu-memory-utilization")


class TooLittleMemoryError(ValueError):
    """The weights alone take more than the pod has."""


def memory_limit(files: Sequence[str] = LIMITS) -> int | None:
    """Of the container, bytes; None without one."""
    for file in files:
        try:
            said = Path(file).read_text().strip()
        except OSError:
            continue
        return int(said) if said.isdigit() and int(said) < UNLIMITED else None
    return None


def available_memory(folders: Sequence[str] = CGROUPS) -> int | None:
    """Of the container, bytes, with what the kernel has cached of files; None without a limit."""
    files = (f"{folders[0]}/memory.max", f"{folders[1]}/memory.limit_in_bytes")
    if (limit := memory_limit(files)) is None:
        return None
    folder = Path(folders[0] if Path(files[0]).exists() else folders[1])
    usage = folder / ("memory.current" if folder == Path(folders[0]) else "memory.usage_in_bytes")
    lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
    cached = sum(int(value) for name, value in lines if name in ("active_file", "inactive_file"))
    return limit - int(usage.read_text()) + cached


def weight_bytes(model: Path, arguments: Sequence[str]) -> int:
    """Of the weights in the data type in which they are served."""
    config = read_config(model)
    width = BYTES.get(first_of(arguments, "--dtype") or "auto")
    return sum(file_bytes(file, width, config) for file in weight_files(model, arguments))


def weight_files(model: Path, arguments: Sequence[str]) -> list[Path]:
    """Those that vLLM reads of a folder with several formats (DefaultModelLoader there): Mistral's own first."""
    own = (
        [] if first_of(arguments, "--load-format") not in (None, "auto") else [*model.glob("consolidated*.safetensors")]
    )
    files, index = (own, "consolidated") if own else ([*model.glob("*.safetensors")], "model")
    if not files:
        return [file for file in model.glob("*.bin") if file.name not in NO_WEIGHTS]
    try:
        listed = set(json.loads((model / f"{index}.safetensors.index.json").read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # vLLM tells of one that is broken
        return files
    return [file for file in files if file.name in listed]


def file_bytes(file: Path, width: int | None, config: dict[str, Any]) -> int:
    """In memory; ``width``: bytes of a number as it is served, None: as it is stored."""
    size = file.stat().st_size
    if width is None:
        return size
    try:
        return sum(served_bytes(tensor, width) for name, tensor in header(file).items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError):  # no safetensors, or a broken one, of which vLLM tells
        text = config.get("text_config") or {}
        said = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
        return size if "quantization_config" in config else size * width // BYTES.get(str(said), 4)


def header(file: Path) -> dict[str, Any]:
    """Of a safetensors file: its tensors, by name."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        found: dict[str, Any] = json.loads(opened.read(min(length, HEADER_BYTES)))
    return found


def served_bytes(tensor: dict[str, Any], width: int) -> int:
    """Of a tensor of a header; a quantized one stays as it is."""
    begin, end = tensor["data_offsets"]
    return int(end - begin) * width // STORED.get(tensor["dtype"], width)


def cache_bytes(limit: int | None, weights: int, workers: int = 1) -> int:
    """Bytes for the KV cache of each worker; raises TooLittleMemoryError."""
    if limit is None:
        return WITHOUT_A_LIMIT
    if weights + LEAST > limit:
        raise TooLittleMemoryError(
            f"spec.resources.limits.memory: {limit / GIB:.1f} GiB do not hold the weights, which take "
            f"{weights / GIB:.1f} GiB; use at least {(weights + PROCESSES + LEAST) / SPARE / GIB + 0.05:.1f} GiB"
        )
    rest = int(SPARE * limit) - PROCESSES - (workers - 1) * WORKER - weights
    return max(LEAST, rest // workers)


def cache_arguments(model: Path, arguments: Sequence[str], environ: dict[str, str]) -> list[str]:
    """What to add to vLLM's arguments on CPU; nothing where the user has chosen."""
    if environ.get("VLLM_CPU_KVCACHE_SPACE") or any(first_of(arguments, flag) for flag in GIVEN):
        return []
    workers = math.prod(max(1, number_of(arguments, flag) or 1) for flag in (TENSOR, *OTHER_SIZES))
    return [f"--kv-cache-memory-bytes={cache_bytes(memory_limit(), weight_bytes(model, arguments), workers)}"]
