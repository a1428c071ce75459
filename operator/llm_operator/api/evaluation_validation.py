"""What must hold of a stage's `evaluation`: metrics that there are, stages to compare with, files to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llm_operator.api.references import uri_problems
from llm_operator.api.resolve import has_training_tokenizer
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_trainer.config import CORPUS_METRIC, FineTuning, Pretrain, Threshold, TrainingSettings, settings_of


def evaluation_problems(spec: LLMTrainingSpec, index: int, settings: TrainingSettings, path: str) -> Iterator[str]:
    evaluation, here = settings.evaluation, f"{path}.evaluation"
    if (evaluation.gate == "none") != (not evaluation.thresholds):
        what = (
            "thresholds do nothing with gate: none; use warn or block"
            if evaluation.thresholds
            else (f"gate: {evaluation.gate} needs thresholds; set some, or leave it out")
        )
        yield f"{here}.{what}"
    yield from text_problems(settings, here)
    yield from corpus_problems(spec, index, settings, here)
    for name, count in Counter(task.name for task in evaluation.tasks).items():
        if count > 1:
            yield f"{here}.tasks: {count} tasks are named {name!r}; give each its own name"
        if name in {figure.partition("/")[0] for figure in settings.held_out}:
            yield f"{here}.tasks: {name!r} is the name of a held-out figure of the stage; use another"
    for number, task in enumerate(evaluation.tasks):
        yield from uri_problems(f"{here}.tasks[{number}].uri", task.uri)
    for number, threshold in enumerate(evaluation.thresholds):
        yield from threshold_problems(spec, index, threshold, f"{here}.thresholds[{number}]")


def text_problems(settings: TrainingSettings, here: str) -> Iterator[str]:
    """A reward model writes no text."""
    evaluation = settings.evaluation
    asked = {"prompts": evaluation.prompts, "tasks": evaluation.tasks, "corpus": evaluation.corpus}
    for name in (name for name, value in asked.items() if value and settings.yields == "rewardModel"):
        yield f"{here}.{name}: is for stages that make a language model; leave it out"


def corpus_problems(spec: LLMTrainingSpec, index: int, settings: TrainingSettings, here: str) -> Iterator[str]:
    if not settings.evaluation.corpus:
        return
    if spec.data is None:
        yield f"{here}.corpus: reads the held-out text of spec.data; set spec.data.sources, or leave it out"
    elif not has_training_tokenizer(spec, index):
        yield (
            f"{here}.corpus: reads spec.data in tokens of the training, and the stage's model has another tokenizer; "
            "leave it out"
        )


def threshold_problems(spec: LLMTrainingSpec, index: int, threshold: Threshold, here: str) -> Iterator[str]:
    if threshold.min is None and threshold.max is None and threshold.at_least is None:
        yield f"{here}: must have min, max or atLeast"
    if threshold.min is not None and threshold.max is not None and threshold.min > threshold.max:
        yield f"{here}.min: {threshold.min:g} is more than max {threshold.max:g}"
    stage = spec.stages[index]
    yield from metric_problems(spec, stage, threshold.metric, f"{here}.metric")
    if (wanted := threshold.at_least) is None:
        return
    before = next((earlier for earlier in spec.stages[:index] if earlier.name == wanted.stage), None)
    if before is None:
        names = ", ".join(earlier.name for earlier in spec.stages[:index]) or "none"
        where = "comes later" if wanted.stage in {s.name for s in spec.stages[index:]} else "does not exist"
        yield f"{here}.atLeast.stage: stage {wanted.stage!r} {where}; the stages before this one are {names}"
        return
    other = wanted.metric or threshold.metric
    yield from metric_problems(spec, before, other, f"{here}.atLeast" + (".metric" if wanted.metric else ""))
    if is_corpus(threshold.metric) and before.evaluation.tokens != stage.evaluation.tokens:
        yield (
            f"{here}.atLeast: {threshold.metric} of both stages must be of the same text; set evaluation.tokens of "
            "both to the same number"
        )


def is_corpus(metric: str) -> bool:
    return metric.partition("/")[0] == CORPUS_METRIC


def metric_problems(spec: LLMTrainingSpec, stage: Stage, metric: str, here: str) -> Iterator[str]:
    """A metric that the stage can't tell, as far as the spec says it; a task's own metrics are in its file."""
    settings = settings_of(stage)
    if settings is None:
        return
    name, _, part = metric.partition("/")
    if name in {task.name for task in settings.evaluation.tasks}:
        if not part:
            yield f"{here}: {metric} is a task; name its metric too, such as {metric}/acc"
        return
    if is_corpus(metric) and (settings.evaluation.corpus or isinstance(settings, Pretrain)):
        known = corpus_metrics(spec)
    else:
        known = list(settings.held_out)
        if isinstance(settings, FineTuning) and settings.dataset.validation_fraction == 0 and metric in known:
            yield f"{here}: {metric} needs held-out rows, and dataset.validationFraction of {stage.name!r} is 0"
    if metric not in known:
        hint = "; set evaluation.corpus of it" if is_corpus(metric) else ""
        tasks = [f"{task.name}/METRIC" for task in settings.evaluation.tasks]
        yield f"{here}: stage {stage.name!r} tells no {metric}; it tells {', '.join([*known, *tasks]) or 'none'}{hint}"


def corpus_metrics(spec: LLMTrainingSpec) -> list[str]:
    """Of the held-out text."""
    sources = spec.data.sources if spec.data else []
    names = [source.name for source in sources] + [f"language/{s.language}" for s in sources if s.language]
    return [CORPUS_METRIC, *dict.fromkeys(f"{CORPUS_METRIC}/{name}" for name in names)]
