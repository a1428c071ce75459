"""Objects that somebody writes who means harm, or that an older definition has let in: what each attack looked like.

Those of the corpus were found by hand; ``mutated`` makes any number more from what the schema allows.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.validation import load_serving
from tests.app_specs import EVERYTHING
from tests.schema_values import CRDS, changed_specs, spec_schema
from tests.specs import SERVING, TRAINING

Manifest = dict[str, Any]
KEYS = 25_000
LONG = "9" * 60_000


NESTED = re.compile(r'"<(list|object) nested (\d+) deep>"')


def nested(kind: str, depth: int) -> str:
    """Stands for lists, or objects of one key, until it is ``written``: Python itself can't write what is so deep."""
    return f"<{kind} nested {depth} deep>"


def written(manifest: Any) -> str:
    """JSON."""

    def whole(mark: re.Match[str]) -> str:
        begin, end = ("[", "]") if mark[1] == "list" else ('{"a":', "}")
        return begin * int(mark[2]) + "1" + end * int(mark[2])

    return NESTED.sub(whole, json.dumps(manifest))


# What stands in the place of a value of any type.
MONSTERS: dict[str, Callable[[], Any]] = {
    "nested objects": lambda: nested("object", 900),
    "nested lists": lambda: nested("list", 900),
    "nested beyond Python": lambda: nested("list", 4000),
    "long digits": lambda: LONG,
    "long text": lambda: "語" * 20_000,
    "large number": lambda: 1e300,
    "large integer": lambda: 10**18,
    "negative": lambda: -(2**63),
    "many keys": lambda: {f"key-{number}": number for number in range(1000)},
    "many items": lambda: [0] * KEYS,
    "controls": lambda: "\x1b[2J\u202e\ud7ff\x00\x7f",
    "format": lambda: "%2000000000d",
    "null": lambda: None,
    "empty": dict,
}


def replaced(manifest: Manifest, path: tuple[str | int, ...], value: Any) -> Manifest:
    made = copy.deepcopy(manifest)
    at: Any = made
    for part in path[:-1]:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
    at[path[-1]] = value
    return made


def sized(**config: Any) -> Manifest:
    return replaced(TRAINING, ("model", "architecture", "config"), config)


TRAININGS: dict[str, Any] = {
    **{f"affinity is {name}": replaced(TRAINING, ("pods", "affinity"), make()) for name, make in MONSTERS.items()},
    **{f"tolerations {name}": replaced(TRAINING, ("pods", "tolerations"), make()) for name, make in MONSTERS.items()},
    **{f"a size is {name}": sized(hidden_size=make(), num_hidden_layers=make()) for name, make in MONSTERS.items()},
    **{f"a claim is {name}": replaced(TRAINING, ("storage",), make()) for name, make in MONSTERS.items()},
    **{f"resumeFrom is {name}": replaced(TRAINING, ("resumeFrom",), make()) for name, make in MONSTERS.items()},
    **{f"stages are {name}": replaced(TRAINING, ("stages",), make()) for name, make in MONSTERS.items()},
    **{f"spec is {name}": make() for name, make in MONSTERS.items()},
    "unknown keys": {**TRAINING, **{f"key-{number}": number for number in range(KEYS)}},
    "layers": sized(num_hidden_layers=10**12),
    "layers that may be": sized(num_hidden_layers=1024, hidden_size=10**8, num_attention_heads=10**8),
    "stages without end": {**TRAINING, "stages": TRAINING["stages"] * 500},
}  # fmt: skip

# Nearly all that an API server takes, of what costs most to read; several, as a page of a list holds.
LARGE = 50_000  # stages
HEAVY: dict[str, Any] = {
    f"1.4 MB of stages, {number}": {**TRAINING, "stages": [{"name": "a", "sft": {}}] * LARGE} for number in range(4)
}

STATUSES: dict[str, Any] = {
    **{f"stages are {name}": {"stages": make()} for name, make in MONSTERS.items()},
    **{f"conditions are {name}": {"conditions": make()} for name, make in MONSTERS.items()},
    **{f"runUri is {name}": {"runUri": make()} for name, make in MONSTERS.items()},
    **{f"status is {name}": make() for name, make in MONSTERS.items()},
    "attempts": {"stages": [{"name": "base", "kind": "pretrain", "state": "Running", "attempts": [
        {"number": 10**18, "job": LONG, "startTime": "then"}]}]},
}  # fmt: skip

SERVINGS: dict[str, Any] = {
    **{f"model is {name}": replaced(SERVING, ("model",), make()) for name, make in MONSTERS.items()},
    **{f"adapters are {name}": replaced(SERVING, ("adapters",), make()) for name, make in MONSTERS.items()},
    **{f"arguments are {name}": replaced(SERVING, ("extraArguments",), make()) for name, make in MONSTERS.items()},
    **{f"spec is {name}": make() for name, make in MONSTERS.items()},
}

BLANKS = "{{" + " " * 32_000  # a pattern that tries all ways to share them out takes hours
APPS: dict[str, Any] = {
    **{f"{field} is {name}": replaced(EVERYTHING, (field,), make())
       for field in EVERYTHING for name, make in MONSTERS.items()},
    **{f"sources are {name}": replaced(EVERYTHING, ("knowledge", 0, "sources"), make())
       for name, make in MONSTERS.items()},
    **{f"a ConfigMap is {name}": replaced(EVERYTHING, ("knowledge", 0, "sources", 1, "configMap", "name"), make())
       for name, make in MONSTERS.items()},
    **{f"keys are {name}": replaced(EVERYTHING, ("knowledge", 0, "sources", 1, "configMap", "keys"), make())
       for name, make in MONSTERS.items()},
    **{f"variables are {name}": replaced(EVERYTHING, ("prompt", "variables"), make())
       for name, make in MONSTERS.items()},
    **{f"a template of blanks in {field}": replaced(EVERYTHING, ("prompt", field), BLANKS)
       for field in ("system", "contextTemplate")},
    **{f"a schema of {what}": replaced(EVERYTHING, ("prompt", "outputSchema"), text) for what, text in {
        "levels": "[" * 8000 + "]" * 8000, "objects": '{"type":' * 900, "digits": "9" * 16_000,
        "half a character": '{"type": "object", "a": "\\ud800"}'}.items()},
    "a prompt of 26 MB": replaced(EVERYTHING, ("prompt",), {"system": "{{a}}" * 6500, "variables": {"a": "語" * 4096}}),
    "knowledge without end": {**EVERYTHING, "knowledge": EVERYTHING["knowledge"] * 2000},
    "ConfigMaps without end": replaced(EVERYTHING, ("knowledge", 0, "sources"), [
        {"name": f"s{number}", "configMap": {"name": f"m{number}"}} for number in range(5000)]),
}  # fmt: skip
APP_STATUSES: dict[str, Any] = {
    **{f"knowledge is {name}": {"knowledge": make()} for name, make in MONSTERS.items()},
    **{f"model is {name}": {"model": make()} for name, make in MONSTERS.items()},
    **{f"conditions are {name}": {"conditions": make()} for name, make in MONSTERS.items()},
    **{f"status is {name}": make() for name, make in MONSTERS.items()},
}

# Annotations and labels are texts, whatever stands in them.
ANNOTATIONS = {
    "llm-operator.io/model-uri": "pvc://../../etc\x1b[2J",
    "llm-operator.io/model-step": "9" * 4000,
    "llm-operator.io/model-digest": "\u202e" * 1000,
    "llm-operator.io/adapters": "[" * 100_000,
    "llm-operator.io/knowledge": "[" * 100_000,
    "llm-operator.io/template": "語" * 1000,
    "llm-operator.io/applied": "{" * 1000,
}


def unbounded(plural: str) -> Manifest:
    """The definition as an older one may have been: anything goes."""
    definition: Manifest = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    for version in definition["spec"]["versions"]:
        version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version["subresources"].pop("scale", None)
    return definition


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of all values below one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(plural: str, count: int, number: int = 0) -> list[Manifest]:
    """So many specs: what the schema allows, and every second with a monster at one place. The same for each number."""
    base = {"llmtrainings": TRAINING, "llmservings": SERVING, "llmapps": EVERYTHING}[plural]
    few = drawn(changed_specs([base], spec_schema(plural)), min(count, 200), number)
    chance, names = random.Random(number), list(MONSTERS)
    made = [copy.deepcopy(few[index % len(few)]) for index in range(count)]
    for index in range(0, count, 2):
        if found := list(places(made[index])):
            made[index] = replaced(made[index], chance.choice(found), MONSTERS[chance.choice(names)]())
    return made


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    found: list[Any] = []

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


def manifests(kind: str, specs: dict[str, Any], prefix: str) -> Iterator[Manifest]:
    for number, (title, spec) in enumerate(specs.items()):
        metadata = {"name": f"{prefix}-{number}", "annotations": {"example.com/attack": title}}
        yield {"apiVersion": "llm-operator.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def gpu_serving() -> LLMServingSpec:
    """Whose heads must be spread over three GPUs."""
    return load_serving({**SERVING, "resources": {"limits": {"nvidia.com/gpu": 3}}})
