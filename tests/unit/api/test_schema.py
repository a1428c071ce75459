from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llm_operator.api.schema import RESOURCES, custom_resource_definition, differences


def test_generated_files_are_up_to_date() -> None:
    found = differences()
    assert not found, "run `make generate`:\n" + "".join(found)


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field.get("items", field), f"{path}.{name}")


def kubernetes_own(path: str) -> bool:
    """Whether a field is part of a field of the pods: Kubernetes documents it."""
    return "." in path.partition(".pods.")[2]


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_every_field_has_a_description(resource: Any) -> None:
    schema = custom_resource_definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    bare = [
        path
        for path, field in fields(schema, "")
        if "description" not in field and path != ".metadata" and not kubernetes_own(path)
    ]
    assert not bare, f"without a description: {bare}"
