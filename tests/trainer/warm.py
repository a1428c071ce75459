"""Pods forked from one parent that has imported everything, as multiprocessing's fork server does.

A pod runs the launcher as always; only what comes before, the start of Python and the imports, is saved. No test shares
state with another: the parent only imports, has one thread, and never runs anything of torch, OpenMP or gloo.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import get_args

from llm_trainer.config.training import Family
from llm_trainer.worker import STAGES

# What a library reads as it is imported; a pod that wants others must be started by `python -m llm_trainer.launch`.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
}
# pyarrow's allocator would start a thread as it is imported.
OF_PARENT = {**ENVIRONMENT, "JE_ARROW_MALLOC_CONF": "background_thread:false"}

_context = multiprocessing.get_context("forkserver")
_started = False


def start_pod(environment: Mapping[str, str], log: Path) -> BaseProcess:
    """A pod's launcher with this environment, its output in the log. The parent is started with the first one."""
    others = {name: environment[name] for name, value in ENVIRONMENT.items() if environment.get(name, value) != value}
    assert not others, f"a warm pod has {ENVIRONMENT}; {others} needs a cold one"
    start_parent()
    process = _context.Process(target=run_pod, args=(dict(environment), str(log)), daemon=True)
    process.start()
    return process


def start_parent() -> None:
    global _started
    if not _started:
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # another test's, which has imported nothing
        _started = True
    kept = dict(os.environ)
    os.environ.update(OF_PARENT)
    try:
        _context.set_forkserver_preload([f"{__package__}.warm_parent"])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(kept)


def run_pod(environment: dict[str, str], log: str) -> None:
    """In the forked process; never returns."""
    assert "deepspeed" in sys.modules, "the parent has imported nothing: see its traceback on standard error"
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(":")
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    from llm_trainer.launch import main

    code = main()
    sys.stdout.flush()
    os._exit(code)


def import_everything() -> None:
    """All that any stage imports. Raises RuntimeError if that starts a thread: a fork would not have it."""
    modules = ["llm_trainer.launch", "deepspeed", "deepspeed.runtime.engine", "llm_trainer.models.low_rank"]
    modules += [f"llm_trainer.stages.{stage}" for stage in STAGES]
    modules += [f"transformers.models.{family}.modeling_{family}" for family in get_args(Family)]
    for module in modules:
        importlib.import_module(module)
    if (threads := len([*Path("/proc/self/task").iterdir()])) != 1:
        raise RuntimeError(f"after its imports the warm parent has {threads} threads; it must not fork")
