"""Tasks of lm-evaluation-harness (Gao et al. 2024): read before any GPU is taken, and run on the model as it is.

Nothing is fetched and no code of a task file runs: the file is read by `data/task_files.py`, and templates by Jinja's
sandbox.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import datasets
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import EvaluationTask, TaskCheck, TrainingSettings
from llm_trainer.data.task_files import read_task
from llm_trainer.models.engine import Engine
from llm_trainer.protocol import Score
from llm_trainer.runtime.errors import ConfigurationError, DataError, StageError
from llm_trainer.stages.shared_requests import LIKELIHOODS, NUMBERS, TEXTS, Sharing

SEED = 1234  # of the examples before a question: lm-eval's own default
RESAMPLES = 1000  # for the standard error of a metric that has no formula of it


def check_task(check: TaskCheck, volumes_root: str) -> str:
    """In a few words what the task is. Raises DataError for one that its stage could not run, and ConfigurationError
    where lm-eval is missing.
    """
    with loaded([check], volumes_root, [check.field]) as tasks:
        task = tasks[check.name]
        known = {f"{metric}{'' if name == 'none' else f',{name}'}"
                 for metric in task.aggregation() for name in filters_of(task)}  # fmt: skip
        if missing := [metric for metric in check.metrics if metric not in known]:
            raise DataError(
                f"{check.field}: {check.uri} gives no {', '.join(missing)}, which evaluation.thresholds name; its "
                f"metrics are {', '.join(f'{check.name}/{name}' for name in sorted(known))}"
            )
        with corrigible(f"{check.field}: {check.uri}"):  # a template may fail at any question
            task.build_all_requests(limit=check.limit, rank=0, world_size=1)
        return f"task {check.name} of {len(task.eval_docs):,} questions"


def run_tasks(
    tasks: Sequence[EvaluationTask],
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    volumes_root: str,
    settings: TrainingSettings,
    alive: Callable[[], None],
) -> list[Score]:
    """The scores of the model as it is; a collective, in which each has its share. `alive` is called at each batch."""
    with loaded(tasks, volumes_root, [f"evaluation.tasks[{n}].uri" for n in range(len(tasks))]) as made:
        from lm_eval.evaluator import evaluate

        found: list[Score] = []
        with engine.whole() as model:
            sharing = Sharing(settings, engine.group)
            lm = shared(alive, sharing)(pretrained=model, tokenizer=tokenizer, batch_size=settings.micro_batch_size)
            for task in tasks:
                one: Any = {"tasks": {task.name: made[task.name]}, "groups": {}, "group_map": {}}
                results = evaluate(lm=lm, task_dict=one, limit=task.limit, bootstrap_iters=RESAMPLES, log_samples=False)
                found += scores_of(task.name, results) if results else []
    return found


def shared(alive: Callable[[], None], sharing: Sharing) -> type[Any]:
    """lm-eval's wrapper of a transformers model, which answers its share and tells at each batch that it is alive."""
    from lm_eval.models.huggingface import HFLM

    class Shared(HFLM):  # type: ignore[misc]
        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:  # noqa: FBT001, FBT002 -- as lm-eval
            return sharing.answers(requests, partial(super().loglikelihood, disable_tqdm=disable_tqdm), LIKELIHOODS)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:  # noqa: FBT001, FBT002
            ask = partial(super().loglikelihood_rolling, disable_tqdm=disable_tqdm)
            return sharing.answers(requests, ask, NUMBERS)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:  # noqa: FBT001, FBT002
            return sharing.answers(requests, partial(super().generate_until, disable_tqdm=disable_tqdm), TEXTS)

        def _model_call(self, *arguments: Any, **named: Any) -> Any:
            alive()
            return super()._model_call(*arguments, **named)

        def _model_generate(self, *arguments: Any, **named: Any) -> Any:
            alive()
            return super()._model_generate(*arguments, **named)

    return Shared


def scores_of(task: str, results: Any) -> list[Score]:
    """Of one task, from what lm-eval gives."""
    told_of, count = results["results"][task], results["n-samples"].get(task, {}).get("effective", 0)
    scores = []
    for key, value in told_of.items():
        metric, comma, name = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = told_of.get(f"{metric}_stderr,{name}")
        scores.append(
            Score(
                task=task,
                metric=metric,
                filter=name,
                value=float(value),
                stderr=float(error) if isinstance(error, int | float) and math.isfinite(error) else None,
                samples=count,
                few_shot=results["n-shot"].get(task) or 0,
                higher_is_better=bool(results["higher_is_better"].get(task, {}).get(metric, True)),
            )
        )
    return scores


@contextmanager
def loaded(tasks: Sequence[EvaluationTask], volumes_root: str, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """lm-eval's tasks by name, with their data in a folder that goes afterwards. Raises as `check_task` does."""
    if find_spec("lm_eval") is None:
        raise ConfigurationError(
            "evaluation.tasks: the trainer image has no lm-eval; use the operator's image, add it, or remove the tasks"
        )
    os.environ["DISABLE_MULTIPROC"] = "1"  # to estimate an error it would fork this process, once for each core
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    import lm_eval.api.model
    import lm_eval.api.task
    import lm_eval.models.huggingface
    import lm_eval.utils

    lm_eval.utils.env = sandbox(lm_eval.utils.env)
    for module in (lm_eval.api.model, lm_eval.api.task, lm_eval.models.huggingface):
        module.tqdm = quiet
    with tempfile.TemporaryDirectory(prefix="lm-eval-") as cache:
        made = {}
        for task, field in zip(tasks, fields, strict=True):
            config = read_task(task, field, volumes_root)
            refuse_metrics(config, f"{field}: {task.uri}")
            config["dataset_kwargs"]["cache_dir"] = cache
            with corrigible(f"{field}: {task.uri}"):
                made[task.name] = lm_eval.api.task.ConfigurableTask(config=config)
                made[task.name].set_fewshot_seed(seed=SEED)
        yield made


@contextmanager
def corrigible(where: str) -> Iterator[None]:
    """What lm-eval raises of a task file or its data is the user's to correct."""
    try:
        yield
    except (StageError, MemoryError):
        raise
    except Exception as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{where}: lm-eval can't run it: {text} ({type(error).__name__}); correct it, or its data"
        ) from error


def quiet(*arguments: Any, **named: Any) -> Any:
    """A bar of progress that nobody sees: in a log each of its moves is a line."""
    return tqdm(*arguments, **{**named, "disable": True})


def refuse_metrics(config: dict[str, Any], where: str) -> None:
    """lm-eval would ask a hub for a metric that it doesn't know."""
    from lm_eval.api.registry import METRIC_REGISTRY

    for metric in config.get("metric_list") or ():
        if metric.get("metric") not in METRIC_REGISTRY:
            known = ", ".join(sorted(METRIC_REGISTRY))
            raise DataError(f"{where}: lm-eval has no metric {metric.get('metric')!r}; use one of {known}")


def filters_of(task: Any) -> list[str]:
    return [one.name for one in task._filters]


def sandbox(own: Any) -> ImmutableSandboxedEnvironment:
    """In the place of lm-eval's environment of templates, in which a template could reach all of Python."""
    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters["regex_replace"] = own.filters["regex_replace"]
    return made
