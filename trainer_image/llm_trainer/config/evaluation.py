"""When a stage is evaluated, on what, and what must hold of a result before anybody is told of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from llm_trainer.config.base import Name, Settings, Uri

METRIC = r"^[A-Za-z0-9][A-Za-z0-9._,/-]*$"
CORPUS_METRIC = "bitsPerByte"  # of the held-out text; also /SOURCE and /language/LANGUAGE
FALLING = ("loss", "baseLoss", CORPUS_METRIC)  # held-out figures that are better the lower they are

Metric = Annotated[str, StringConstraints(pattern=METRIC, max_length=128)]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Gate = Literal["none", "warn", "block"]


class AtLeast(Settings):
    """As good as an earlier stage, but for delta: no more below it, or above it where less is better."""

    stage: Name = Field(description="An earlier stage of the training.")
    metric: Metric | None = Field(default=None, description="Of that stage. Default: the same metric.")
    delta: float = Field(default=0, ge=0, le=1e9, description="By how much it may be worse.")


class Threshold(Settings):
    """What a metric must be. At least one of min, max and atLeast."""

    metric: Metric = Field(
        description="A held-out figure, such as loss or bitsPerByte/SOURCE, or TASK/METRIC of a task, such as "
        "capitals/acc; TASK/METRIC,FILTER for the answers of a filter."
    )
    min: float | None = Field(default=None, ge=-1e12, le=1e12, description="The least that passes.")
    max: float | None = Field(default=None, ge=-1e12, le=1e12, description="The most that passes.")
    at_least: AtLeast | None = Field(default=None, description="Compared with an earlier stage.")


class EvaluationTask(Settings):
    """A task of lm-evaluation-harness: a YAML file and its data, on a claim."""

    name: Name = Field(description="Its metrics are NAME/METRIC.")
    uri: Uri = Field(description="Its YAML file. data_files are relative to its folder; it may call no Python.")
    num_fewshot: int | None = Field(
        default=None, ge=0, le=64, description="Examples before each question. Default: the file's num_fewshot, else 0."
    )
    limit: int | None = Field(default=None, ge=1, le=1_000_000, description="First questions only. Default: all.")


class Evaluation(Settings):
    """Held-out figures and the model's own answers as it trains; tasks and thresholds before a result is published."""

    every_steps: int = Field(default=50, ge=1, le=1_000_000_000, description="Optimizer steps between two evaluations.")
    tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000_000,
        description="About how many held-out tokens each reads, the same ones each time. Default: those that cost a "
        "hundredth of the steps between two; of corpus 131072.",
    )
    corpus: bool = Field(
        default=False,
        description="Also bitsPerByte of the held-out text of spec.data, as pretrain always tells it, so that a "
        "fine-tune that forgets is seen.",
    )
    prompts: list[Prompt] = Field(
        default_factory=list,
        max_length=16,
        description="The model's answers to them are in history.jsonl at each evaluation.",
    )
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="Of each answer to prompts, at most.")
    temperature: float = Field(
        default=0, ge=0, le=10, description="Of the answers to prompts, drawn by seed. 0: the likeliest token."
    )
    tasks: list[EvaluationTask] = Field(
        default_factory=list, max_length=16, description="Run before each result is published, by lm-eval."
    )
    gate: Gate = Field(
        default="none",
        description="Where a threshold is missed: block publishes no result, and fails the stage if it is its last "
        "one; warn publishes it with a notice.",
    )
    thresholds: list[Threshold] = Field(
        default_factory=list, max_length=32, description="What must hold of each result."
    )
