from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llm_operator.api.validation import InvalidSpecError, load_serving, load_training
from tests.specs import RIGHT_SERVINGS, WRONG_SERVINGS, WRONG_TRAININGS, Spec, Wrong, right_trainings

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("case", WRONG_TRAININGS, ids=lambda case: case.name)
def test_a_wrong_training_is_refused_by_its_field(case: Wrong) -> None:
    with pytest.raises(InvalidSpecError) as refused:
        load_training(case.spec)
    assert any(problem.startswith("spec") for problem in refused.value.problems)
    assert any(case.path in problem and case.says in problem for problem in refused.value.problems), str(refused.value)


@pytest.mark.parametrize("case", WRONG_SERVINGS, ids=lambda case: case.name)
def test_a_wrong_serving_is_refused_by_its_field(case: Wrong) -> None:
    with pytest.raises(InvalidSpecError) as refused:
        load_serving(case.spec)
    assert any(case.path in problem and case.says in problem for problem in refused.value.problems), str(refused.value)


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in right_trainings()])
def test_a_right_training_is_accepted(spec: Spec) -> None:
    load_training(spec)


@pytest.mark.parametrize("spec", RIGHT_SERVINGS)
def test_a_right_serving_is_accepted(spec: Spec) -> None:
    assert load_serving(spec).replicas == 1


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_are_right(file: Path) -> None:
    load = {"LLMTraining": load_training, "LLMServing": load_serving}
    for manifest in yaml.safe_load_all(file.read_text()):
        load[manifest["kind"]](manifest["spec"])
