from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml

from llm_operator.api.app_rules import APP_RULES
from llm_operator.api.rules import Path, Rule
from llm_operator.api.serving_rules import SERVING_RULES
from llm_operator.api.training_rules import TRAINING_RULES
from llm_operator.api.validation import InvalidSpecError, load_app, load_serving, load_training
from tests.app_specs import PLAIN, RIGHT_APPS, WRONG_APPS
from tests.pod_cases import ALL_PODS, RIGHT_PODS, RIGHT_SERVING_PODS
from tests.right_trainings import RIGHT_TRAININGS
from tests.serving_specs import RIGHT_SERVINGS, WRONG_SERVINGS
from tests.specs import Spec, Wrong, changed
from tests.wrong_trainings import WRONG_TRAININGS

EXAMPLES = sorted((pathlib.Path(__file__).parents[3] / "examples").glob("*.yaml"))


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


@pytest.mark.parametrize("case", WRONG_APPS, ids=lambda case: case.name)
def test_a_wrong_app_is_refused_by_its_field(case: Wrong) -> None:
    with pytest.raises(InvalidSpecError) as refused:
        load_app(case.spec)
    assert any(case.path in problem and case.says in problem for problem in refused.value.problems), str(refused.value)


@pytest.mark.parametrize("spec", RIGHT_APPS)
def test_a_right_app_is_accepted(spec: Spec) -> None:
    load_app(spec)


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in RIGHT_TRAININGS.items()])
def test_a_right_training_is_accepted(spec: Spec) -> None:
    load_training(spec)


@pytest.mark.parametrize("spec", RIGHT_SERVINGS)
def test_a_right_serving_is_accepted(spec: Spec) -> None:
    assert load_serving(spec).replicas == 1


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_are_right(file: pathlib.Path) -> None:
    load = {"LLMTraining": load_training, "LLMServing": load_serving, "LLMApp": load_app}
    for manifest in yaml.safe_load_all(file.read_text()):
        load[manifest["kind"]](manifest["spec"])


@pytest.mark.parametrize(
    ("kind", "rules"),
    [("LLMTraining", TRAINING_RULES), ("LLMServing", SERVING_RULES), ("LLMApp", APP_RULES)],
    ids=("training", "serving", "app"),
)
def test_every_rule_has_a_right_case(kind: str, rules: dict[Path, tuple[Rule, ...]]) -> None:
    """Each rule that looks at a field must have let one through; tests/api/test_crds.py has the wrong ones."""
    specs = {
        "LLMTraining": [*RIGHT_TRAININGS.values(), *RIGHT_PODS.values()],
        "LLMServing": [*RIGHT_SERVINGS, *RIGHT_SERVING_PODS.values()],
        "LLMApp": [*RIGHT_APPS, changed(PLAIN, pods=ALL_PODS)],
    }[kind]
    right = [{"metadata": {"name": "right"}, "spec": spec} for spec in specs]
    unseen = [
        f"{'.'.join(path)}{rule.field_path}"
        for path, found in rules.items()
        for rule in found
        if not any(holds(manifest, (*path, *rule.field_path.split(".")[1:])) for manifest in right)
    ]
    assert not unseen, f"no right spec in tests/specs.py has {unseen}"


def holds(value: Any, path: Path) -> bool:
    """Whether there is anything at the path; "*" stands for the items of a list."""
    match path:
        case ():
            return True
        case "*", *rest:
            return any(holds(item, tuple(rest)) for item in value)
        case first, *rest:
            return isinstance(value, dict) and first in value and holds(value[first], tuple(rest))
    return False


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "chat"}, "spec.model: must be an object with fields of its own, not 'chat'"),
        ({"knowledge": [{"name": "a", "sources": []}]}, "spec.knowledge[0].sources: must have at least 1, not 0"),
        ({"prompt__outputSchema": {}}, "spec.prompt.outputSchema: must be a text, which quotes make of"),
        ({"evaluation": {"questions": {"uri": "/q"}}}, "uri: must match the pattern pvc://CLAIM/PATH, not '/q'"),
        ({"workflow": {"router": {"agents": ["Two words"]}}}, "must match the pattern of small letters"),
        ({"replicas": -1}, "spec.replicas: must be greater than or equal to 0, not -1"),
    ],
)  # fmt: skip
def test_a_type_that_is_wrong_is_told_in_a_users_words(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSpecError, match=re.escape(says)):
        load_app(changed(PLAIN, **change))
