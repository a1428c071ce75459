"""A spec as a user wrote it, or all that is wrong with it, of which the CRD's CEL rules say as much as they can.

A problem reads "spec.path[0].field: what is wrong; what to do".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llm_operator.api.app import LLMAppSpec
from llm_operator.api.app_validation import app_problems
from llm_operator.api.common import Spec, field_path
from llm_operator.api.quantities import shown
from llm_operator.api.resources import DEFAULT_DEVICES, Devices
from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.serving_validation import serving_problems
from llm_operator.api.text import cut
from llm_operator.api.training import SHARED, LLMTrainingSpec
from llm_operator.api.training_validation import training_problems
from llm_trainer.config import KINDS

MOST_PROBLEMS = 32  # that are told
PROBLEM_BYTES = 1024
SpecType = TypeVar("SpecType", bound=Spec)


class InvalidSpecError(ValueError):
    """A spec that can't work, with everything that is wrong with it."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load_training(spec: object, devices: Devices = DEFAULT_DEVICES) -> LLMTrainingSpec:
    """Raises InvalidSpecError."""
    return _load(LLMTrainingSpec, spec, devices, training_problems)


def load_serving(spec: object, devices: Devices = DEFAULT_DEVICES) -> LLMServingSpec:
    """Raises InvalidSpecError."""
    return _load(LLMServingSpec, spec, devices, serving_problems)


def load_app(spec: object, devices: Devices = DEFAULT_DEVICES) -> LLMAppSpec:
    """Raises InvalidSpecError."""
    return _load(LLMAppSpec, spec, devices, app_problems)


def _load(
    model: type[SpecType], spec: object, devices: Devices, problems: Callable[[SpecType], Iterator[str]]
) -> SpecType:
    if spec is None:
        raise InvalidSpecError(("spec: is required; set it",))
    try:
        loaded = model.model_validate(spec, strict=True, by_alias=True, by_name=False, context={"devices": devices})
    except ValidationError as error:
        found = first(_say(detail) for detail in error.errors(include_url=False))
    else:
        found = first(problems(loaded))
        if not found:
            return loaded
    raise InvalidSpecError(found)  # here, so that it keeps neither pydantic's error nor the values in it


def first(problems: Iterator[str]) -> tuple[str, ...]:
    """Those that are told, each once and not longer than is read: a spec may have as many as it has bytes."""
    told: dict[str, None] = {}
    for problem in problems:
        if len(told) == MOST_PROBLEMS:
            return (*told, "and more; mend these first")
        told[cut(problem, PROBLEM_BYTES)] = None
    return tuple(told)


def _say(error: ErrorDetails) -> str:
    path = field_path("spec", *as_written(error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{path}: there is no such field; remove it or correct its name"
    if error["type"] == "missing":
        return f"{path}: is required; set it"
    if error["type"] == "value_error":
        return f"{path}: {error['ctx']['error']}"
    return f"{path}: {error['msg']}, not {shown(error['input'])}"


def as_written(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where the user wrote a field of a stage's settings: what the kinds share stands beside the kind."""
    match location:
        case ("stages", int(), kind, field, *_) if kind in KINDS.values() and field in SHARED:
            return (*location[:2], *location[3:])
    return location
