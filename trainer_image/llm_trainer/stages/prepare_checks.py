"""What data preparation checks of the stages to come: datasets, tasks, functions and models, before anything costs.

Missing files and bad rows are told before transformers is imported, and torch models only for an architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llm_trainer.checkpoint.record import read_record
from llm_trainer.config import (
    Architecture,
    DatasetCheck,
    FunctionCheck,
    ModelCheck,
    PrepareData,
    StageConfig,
    TaskCheck,
)
from llm_trainer.data.rows import read_rows, refuse_warmup
from llm_trainer.protocol import ModelSize, Notice
from llm_trainer.rl.reward_functions import load_reward
from llm_trainer.runtime.functions import load_function
from llm_trainer.runtime.startup import importing
from llm_trainer.stages.named_models import check_files, check_weights, told_size
from llm_trainer.storage.request import read_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Check = TypeVar("Check", DatasetCheck, ModelCheck, TaskCheck)


def unfinished(config: StageConfig, checks: list[Check]) -> list[Check]:
    """Without those of stages that are not run again: of another training's run folder the rows may be gone."""
    stages = Path(config.run_folder) / "stages"
    records = {check.stage: read_record(stages / check.stage) for check in checks if check.stage}
    return [check for check in checks if not ((record := records.get(check.stage)) and record.end)]


def checked_by_files(config: StageConfig, settings: PrepareData, leave_if_asked: Callable[[], None]) -> list[str]:
    """What a look at files, rows and functions tells, before any library of models is imported: a text of each."""
    for model in settings.models:
        check_files(model, config.volumes_root, leave_if_asked)
    rows = [f"{check_dataset(check, config.volumes_root):,} rows in {check.uri}" for check in settings.datasets]
    for check in settings.functions:
        check_function(check)
    rows += checked_tasks(settings.tasks, config.volumes_root, leave_if_asked)
    if settings.architecture and settings.architecture.function:
        load_function(settings.architecture.function, "spec.model.architecture.function")
    return rows


def checked_models(
    config: StageConfig,
    settings: PrepareData,
    tokenizer: PreTrainedTokenizerBase,
    leave_if_asked: Callable[[], None],
) -> tuple[list[str], list[Notice], list[ModelSize]]:
    """Of the model from scratch and those that a user names: a text of each, what may surprise, sizes by URI."""
    rows: list[str] = []
    found: list[Notice] = []
    sizes: dict[str, ModelSize] = {}
    written = {each.place: each.uri for each in read_inputs(Path(config.run_folder))}  # as the user knows them
    if settings.architecture:
        said, sizes[""] = check_from_scratch(settings, settings.architecture, tokenizer)
        rows.append(said)
    for model in settings.models:
        leave_if_asked()
        said, told, size = check_weights(model, tokenizer, config.volumes_root)
        rows, found = [*rows, said], [*found, *told]
        if size:
            sizes[model.uri] = size.model_copy(update={"uri": written.get(model.uri, model.uri)})
    return rows, found, list(sizes.values())


def check_from_scratch(
    settings: PrepareData, architecture: Architecture, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ModelSize]:
    """In a few words what the model is, and its size. Raises ConfigurationError for one that its stages can't use."""
    with importing():
        from llm_trainer.models.build import check_architecture
        from llm_trainer.models.limits import check_length
        from llm_trainer.models.size import size_of
    model = check_architecture(architecture, tokenizer)
    if settings.length_field:
        check_length(model, settings.length, settings.length_field)
    size = size_of(model)
    return f"a {architecture.family} of {size} from scratch", told_size(size)


def check_function(check: FunctionCheck) -> None:
    """Raises ConfigurationError for a function of the user's that a stage could not use."""
    if check.use == "reward":
        load_reward(check.function, check.field)
    elif check.use == "loss":
        with importing():
            from llm_trainer.models.loss_function import loss_function
        loss_function(check.function, check.field)
    elif check.optimizer:
        with importing():
            from llm_trainer.models.optimizer_function import optimizer_maker
        optimizer_maker(check.function, check.optimizer, check.field, flat=check.flat)


def checked_tasks(checks: list[TaskCheck], volumes_root: str, leave_if_asked: Callable[[], None]) -> list[str]:
    """In a few words each. Raises DataError for the first task that its stage could not run."""
    from llm_trainer.data.task_files import read_task

    for check in checks:
        read_task(check, check.field, volumes_root)  # what is wrong in a file is told before anything is imported
    said = []
    for check in checks:
        leave_if_asked()
        with importing():
            from llm_trainer.stages.tasks import check_task
        said.append(check_task(check, volumes_root))
    return said


def check_dataset(check: DatasetCheck, volumes_root: str) -> int:
    """How many rows a dataset of a later stage has. Raises DataError for the first that its stage could not use."""
    count = sum(1 for _ in read_rows(check, volumes_root))
    refuse_warmup(check, count)
    return count
