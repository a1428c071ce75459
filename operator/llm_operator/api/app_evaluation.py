"""``evaluation`` of an LLMApp: questions whose answers are known, and what must hold before anybody is answered so."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from llm_app.config import Metric
from llm_operator.api.common import Spec, Status
from llm_operator.api.pods import ObjectName
from llm_trainer.config import Uri

Key = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
HITS = ("hitAt1", "hitAt3", "hitAt5", "mrr")  # of retrieval
Gate = Literal["none", "warn", "block"]


class QuestionsConfigMap(Spec):
    name: ObjectName = Field(description="A ConfigMap of the same namespace. A change of it evaluates again.")
    key: Key = Field(default="questions.jsonl", description="Of its data.")


class Questions(Spec):
    """Exactly one of configMap and uri: JSON lines with question, and answer, contains or documents."""

    config_map: QuestionsConfigMap | None = Field(default=None, description="A key of a ConfigMap.")
    uri: Uri | None = Field(default=None, description="A file, pvc://CLAIM/PATH.")


class AppThreshold(Spec):
    metric: Metric = Field(description="A metric of the questions; each is from 0 to 1.")
    min: float = Field(ge=0, le=1, description="The least that passes.")


class AppEvaluation(Spec):
    """Each configuration is asked the questions: prompt, knowledge and model as they are wanted now."""

    questions: Questions = Field(description="What is asked, and what is right.")
    limit: int = Field(default=1000, ge=1, le=10_000, description="First questions only.")
    judge: bool = Field(
        default=False, description="The served model itself says of each answer whether it is right: metric judge."
    )
    edition: str = Field(
        default="", max_length=63, description="Any text. A change evaluates again, say as a file of a claim changed."
    )
    gate: Gate = Field(
        default="warn",
        description="Where a threshold is missed, or the questions can't be asked: block leaves the configuration "
        "before in use; warn tells it.",
    )
    thresholds: list[AppThreshold] = Field(
        default_factory=list, max_length=16, description="What must hold of each configuration."
    )


class AppScore(Status):
    """A mean over questions."""

    metric: str = Field(description="Its name.")
    value: float = Field(description="From 0 to 1.")
    stderr: float = Field(description="Standard error of the mean.")
    count: int = Field(description="Questions that have it.")


class AppEvaluationStatus(Status):
    """Of the newest configuration."""

    revision: str = Field(default="", description="Hash of the configuration, the questions and the model.")
    passed: bool | None = Field(default=None, description="Whether it has all thresholds; none while it isn't known.")
    questions: int | None = Field(default=None, description="That were asked.")
    failed: int = Field(default=0, description="Those of them that the model refused; they count as wrong.")
    scores: list[AppScore] = Field(default_factory=list, description="One for each metric that the questions allow.")
    job: str = Field(default="", description="That asks, or has asked; its log has each answer.")
    report: str = Field(default="", description="Each question and answer as JSON lines, pvc://CLAIM/PATH.")
    reason: str = Field(default="", description="How it stands, in one word.")
    message: str = Field(default="", description="How it stands, for people.")
