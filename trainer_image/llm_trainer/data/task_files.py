"""Task files of lm-evaluation-harness on a claim: YAML of which nothing runs, and data that lies beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from llm_trainer.config import EvaluationTask, local_path
from llm_trainer.data.files import told
from llm_trainer.runtime.errors import DataError
from llm_trainer.runtime.volumes import refuse_link_out

MOST_BYTES = 1 << 20  # a task file has no data in it
BUILDERS = ("json", "csv", "parquet", "text")  # of `datasets`: those that read files and run nothing
KEYS = frozenset({
    "task", "task_alias", "tag", "dataset_path", "dataset_kwargs", "training_split", "validation_split", "test_split",
    "fewshot_split", "fewshot_config", "num_fewshot", "doc_to_text", "doc_to_target", "doc_to_choice", "description",
    "target_delimiter", "fewshot_delimiter", "gen_prefix", "output_type", "generation_kwargs", "metric_list",
    "filter_list", "repeats", "metadata",
})  # fmt: skip  # of lm-eval's TaskConfig; the others name Python, other files or a hub
DATASET_KEYS = frozenset({"data_files", "field", "delimiter", "encoding", "column_names"})


def read_task(task: EvaluationTask, field: str, volumes_root: str) -> dict[str, Any]:
    """The task file as lm-eval takes it, with whole paths. Raises DataError that names the file and what to change."""
    try:
        file = Path(local_path(task.uri, volumes_root))
    except ValueError as error:
        raise DataError(f"{field}: {error}") from error
    if not file.is_file():
        raise DataError(f"{field}: {task.uri} is no file; name a YAML file of a task")
    refuse_link_out(file, volumes_root, field)
    with told(field, task.uri):
        if file.stat().st_size > MOST_BYTES:
            raise DataError(f"{field}: {task.uri} has {file.stat().st_size:,} bytes, and a task file {MOST_BYTES:,}")
        text = file.read_text(encoding="utf-8")
    where = f"{field}: {task.uri}"
    written = parsed(text, where)
    refuse_keys(written, where)
    data = data_of(written, file, where, volumes_root)
    return {**written, "task": task.name, "dataset_kwargs": data, **few_shot(task, written, where)}


def parsed(text: str, where: str) -> dict[str, Any]:
    try:
        written = yaml.safe_load(text)
    except yaml.constructor.ConstructorError as error:
        mark = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise DataError(
            f"{where} has a tag that YAML doesn't know{mark}: {error.problem}. A task file may call no Python, such as "
            "by !function; write doc_to_text and the like as Jinja templates"
        ) from error
    except yaml.YAMLError as error:
        raise DataError(f"{where} is no valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DataError(f"{where} is no valid YAML: it is nested too deeply") from error
    if not isinstance(written, dict) or not all(isinstance(key, str) for key in written):
        raise DataError(f"{where} holds no task: it must be a mapping with dataset_path, doc_to_text and so on")
    return written


def refuse_keys(written: dict[str, Any], where: str) -> None:
    if other := sorted(written.keys() - KEYS):
        raise DataError(
            f"{where}: {', '.join(other)} can't be used: it names Python, another file or a hub, or is no key of a "
            f"task; use {', '.join(sorted(KEYS))}"
        )
    metrics = written.get("metric_list")
    if metrics is not None and not (isinstance(metrics, list) and all(isinstance(one, dict) for one in metrics)):
        raise DataError(f"{where}: metric_list must be a list of mappings with metric, such as - metric: acc")
    if hub := [str(one.get("metric")) for one in metrics or () if one.get("hf_evaluate")]:
        raise DataError(f"{where}: hf_evaluate of {', '.join(hub)} fetches code from a hub; use one of lm-eval's own")


def data_of(written: dict[str, Any], file: Path, where: str, volumes_root: str) -> dict[str, Any]:
    """dataset_kwargs with the whole paths of data_files, each of which is there."""
    if (builder := written.get("dataset_path")) not in BUILDERS:
        raise DataError(f"{where}: dataset_path {builder!r} must be one of {', '.join(BUILDERS)}, with data_files")
    given = written.get("dataset_kwargs")
    if not isinstance(given, dict) or not given.get("data_files"):
        raise DataError(f"{where}: dataset_kwargs.data_files is missing; name the files of each split")
    if other := sorted(str(key) for key in given.keys() - DATASET_KEYS):
        raise DataError(f"{where}: dataset_kwargs.{other[0]} can't be used; use {', '.join(sorted(DATASET_KEYS))}")
    files = given["data_files"]
    splits = files if isinstance(files, dict) else {"train": files}
    found = {
        str(split): [
            str(data_file(name, file, f"{where}: data_files of {split}", volumes_root)) for name in listed(names)
        ]
        for split, names in splits.items()
    }
    return {**given, "data_files": found}


def data_file(name: object, file: Path, where: str, volumes_root: str) -> Path:
    if not isinstance(name, str):
        raise DataError(f"{where}: {name!r} is no file name")
    path = Path(os.path.normpath(file.parent / name))
    if not path.is_relative_to(volumes_root) or len(path.relative_to(volumes_root).parts) < 2:
        raise DataError(f"{where}: {name} leads out of the claims; put the file beside the task file")
    if not path.is_file():
        raise DataError(f"{where}: {name} is no file at pvc://{path.relative_to(volumes_root).as_posix()}")
    refuse_link_out(path, volumes_root, where)
    return path


def listed(names: object) -> list[object]:
    return names if isinstance(names, list) else [names]


def few_shot(task: EvaluationTask, written: dict[str, Any], where: str) -> dict[str, Any]:
    """How many examples stand before a question. Raises DataError if these would be the questions themselves."""
    shots = task.num_fewshot if task.num_fewshot is not None else written.get("num_fewshot") or 0
    asked = written.get("test_split") or written.get("validation_split")
    config = written.get("fewshot_config")
    own = config if isinstance(config, dict) else {}
    shown = written.get("fewshot_split") or own.get("split") or written.get("training_split")
    if shots and not own.get("samples") and shown in (None, asked):
        raise DataError(
            f"{where}: with {shots} examples (num_fewshot) it shows rows of the split that it asks; put examples into "
            "a split of their own and name it in fewshot_split"
        )
    return {"num_fewshot": shots}
