from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from llm_operator.api.generated_files import differences
from llm_operator.api.quantities import SCHEMA
from llm_operator.api.schema import RESOURCES, Resource, Schema, custom_resource_definition, generated

# Bytes of JSON. `kubectl apply` keeps all of it in an annotation, and those have 256 KiB; the time of a write of an
# object doesn't grow with it (docs/figures.md).
LIMIT = 160_000


def test_generated_files_are_up_to_date() -> None:
    found = differences(generated())
    assert not found, "run `make generate`:\n" + "".join(found)


def root(resource: Resource) -> Schema:
    schema: Schema = custom_resource_definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every schema below this one."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}.*")


def kubernetes_own(path: str) -> bool:
    """Whether a field is part of a field of the pods: Kubernetes documents it."""
    return "." in path.partition(".pods.")[2]


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_every_field_has_a_description(resource: Resource) -> None:
    bare = [
        path
        for path, field in nodes(root(resource), "")
        if "description" not in field and not path.endswith(("[]", "*")) and path not in ("", ".metadata")
        and not path.startswith(FOREIGN) and not kubernetes_own(path)
    ]  # fmt: skip
    assert not bare, f"without a description: {bare}"


FOREIGN = (".spec.model.architecture.config.",)  # what transformers describes


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_what_a_user_writes_is_typed_and_bounded(resource: Resource) -> None:
    loose = [
        f"{path}: {missing}"
        for path, field in nodes(root(resource)["properties"]["spec"], "spec")
        if (missing := looseness(field))
    ]
    assert not loose, "\n".join(loose)


def looseness(field: Schema) -> str:
    """What a value of any size or shape could come in by; empty if nothing. A quantity has bounds instead of a type."""
    match field.get("type"):
        case "object":
            closed = (
                "additionalProperties" not in field or "maxProperties" in field
            )  # else all but properties is pruned
            return "" if closed and "x-kubernetes-preserve-unknown-fields" not in field else "a map of anything"
        case "array":
            return "" if "maxItems" in field else "a list without maxItems"
        case "string":
            return "" if "maxLength" in field or "enum" in field else "a string without maxLength"
        case "integer":
            return "" if "maximum" in field else "an integer without maximum"
        case "number" | "boolean":
            return ""
    return "" if SCHEMA.items() <= field.items() else "no type"


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_the_schema_stays_small(resource: Resource) -> None:
    size = len(json.dumps(custom_resource_definition(resource)).encode())
    assert size <= LIMIT, f"{size} bytes: what do all stages share that stands more than once?"
