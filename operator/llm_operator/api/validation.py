"""A spec as a user wrote it, or all that is wrong with it, of which the CRD's CEL rules say as much as they can.

A problem reads "spec.path[0].field: what is wrong; what to do".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar, get_args

from pydantic import StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from llm_app.team import ToolName
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
from llm_trainer.config import KINDS, AnyUri, Name, Uri

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
    if error["type"] == "too_short":
        return f"{path}: must have at least {error['ctx']['min_length']}, not {error['ctx']['actual_length']}"
    return f"{path}: {rule(error)}, not {shown(error['input'])}"


def rule(error: ErrorDetails) -> str:
    """What must be, where pydantic would name a class or a regular expression of ours."""
    match error["type"]:
        case "model_type" | "dict_type":
            return "must be an object with fields of its own"
        case "string_type":
            return "must be a text, which quotes make of a number and of JSON"
        case "string_pattern_mismatch":
            pattern = error["ctx"]["pattern"]
            return f"must match the pattern {FORMS.get(pattern, pattern)}"
    return str(error["msg"]).replace("Input should be", "must be", 1)


def pattern_of(text: object) -> str:
    """Of a type that is made by StringConstraints."""
    [constraints] = (one for one in get_args(text)[1:] if isinstance(one, StringConstraints))
    return str(constraints.pattern)


FORMS = {
    pattern_of(Name): "of small letters, digits and '-', which it neither begins nor ends with",
    pattern_of(Uri): "pvc://CLAIM/PATH",
    pattern_of(AnyUri): "pvc://CLAIM/PATH, or begin with hf://, s3:// or https://",
    pattern_of(ToolName): "of letters, digits, '_' and '-', and begin with a letter or '_'",
}


def as_written(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where the user wrote a field of a stage's settings: what the kinds share stands beside the kind."""
    match location:
        case ("stages", int(), kind, field, *_) if kind in KINDS.values() and field in SHARED:
            return (*location[:2], *location[3:])
    return location
