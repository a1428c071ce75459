"""Generates what follows from the models: the CRDs, the chart's copies of them and the reference pages.

python -m llm_operator.api.schema [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from llm_operator.api import quantities
from llm_operator.api.app import LLMAppSpec, LLMAppStatus
from llm_operator.api.app_rules import APP_RULES
from llm_operator.api.architecture_schema import config_schema
from llm_operator.api.common import GROUP, VERSION
from llm_operator.api.families import CLASSES
from llm_operator.api.generated_files import write_or_check
from llm_operator.api.rules import LIST_KEYS, MOST_ITEMS, Rule
from llm_operator.api.serving import LLMServingSpec, LLMServingStatus
from llm_operator.api.serving_rules import SERVING_RULES
from llm_operator.api.training import SHARED, LLMTrainingSpec
from llm_operator.api.training_rules import TRAINING_RULES
from llm_operator.api.training_status import LLMTrainingStatus
from llm_trainer.config import KINDS

HEADER = "# Generated from the models by `make generate`; not to be edited.\n"
STRING_CHARACTERS, MAP_ENTRIES, LIST_ITEMS = 1024, 64, 64  # where a model says nothing: CEL's cost needs a bound
KEPT = ("type", "description", "default", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems",
        "maxItems", "pattern")  # fmt: skip

ONE_LINE, WRAPPED = 110, 300  # characters of what is not spread over lines, with and without anything nested in it
ARCHITECTURE = ("spec", "model", "architecture", "config")
FAMILY = ("spec", "model", "architecture", "family")

Schema = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One CRD."""

    kind: str
    plural: str
    short: str
    summary: str
    spec: type[BaseModel]
    status: type[BaseModel]
    rules: Mapping[tuple[str, ...], tuple[Rule, ...]]
    columns: tuple[tuple[str, str, str], ...]  # name, type, JSON path
    scale: bool = False


AGE = ("Age", "date", ".metadata.creationTimestamp")
RESOURCES = (
    Resource(
        "LLMTraining", "llmtrainings", "llmt", "A model's way from text to a fine-tuned model.",
        LLMTrainingSpec, LLMTrainingStatus, TRAINING_RULES,
        (
            ("Phase", "string", ".status.phase"), ("Stage", "string", ".status.stage"),
            ("Progress", "string", ".status.progress"), ("Loss", "string", ".status.loss"),
            ("Nodes", "integer", ".status.nodes"), ("Restarts", "integer", ".status.restarts"), AGE,
        ),
    ),
    Resource(
        "LLMServing", "llmservings", "llms", "A model behind an OpenAI API, served by vLLM.",
        LLMServingSpec, LLMServingStatus, SERVING_RULES,
        (
            ("Phase", "string", ".status.phase"), ("Ready", "integer", ".status.readyReplicas"),
            ("Model", "string", ".status.model.uri"), ("URL", "string", ".status.url"), AGE,
        ),
        scale=True,
    ),
    Resource(
        "LLMApp", "llmapps", "llmapp", "A product on a served model: knowledge, prompts, an API and a chat page.",
        LLMAppSpec, LLMAppStatus, APP_RULES,
        (
            ("Phase", "string", ".status.phase"), ("Ready", "integer", ".status.readyReplicas"),
            ("Serving", "string", ".spec.model.serving.name"), ("URL", "string", ".status.url"), AGE,
        ),
        scale=True,
    ),
)  # fmt: skip


def custom_resource_definition(resource: Resource) -> Schema:
    names = {"kind": resource.kind, "listKind": f"{resource.kind}List", "plural": resource.plural,
             "singular": resource.kind.lower(), "shortNames": [resource.short], "categories": ["llm"]}  # fmt: skip
    subresources: Schema = {"status": {}}
    if resource.scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root_schema(resource)},
        "subresources": subresources,
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path} for name, kind, path in resource.columns
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def root_schema(resource: Resource) -> Schema:
    parts = {
        "spec": (resource.spec, "What is wanted."),
        "status": (resource.status, "What is. Written by the operator."),
    }
    properties: Schema = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
        "kind": {"type": "string", "description": f"{resource.kind}."},
        "metadata": {"type": "object"},
    }
    for name, (model, description) in parts.items():
        source = model.model_json_schema(by_alias=True)
        converted = convert(source, source.get("$defs", {}), (name,), resource.rules)
        properties[name] = {**converted, "description": description}
    schema: Schema = {"type": "object", "description": resource.summary, "required": ["spec"], "properties": properties}
    if rules := resource.rules.get(()):
        schema["x-kubernetes-validations"] = [rule.as_schema() for rule in rules]
    return schema


def convert(
    source: Schema, definitions: Mapping[str, Schema], path: tuple[str, ...], rules: Mapping[tuple[str, ...], Any]
) -> Schema:
    """JSON Schema as pydantic writes it → a structural schema: no references, no null, bounded."""
    source = resolved(source, definitions)
    if path == ARCHITECTURE:
        return described(config_schema(), source)
    if path == FAMILY:
        return described({"type": "string", "enum": list(CLASSES)}, source)
    if source.get("format") == "quantity":
        return described(quantities.SCHEMA, source)
    target = {key: source[key] for key in KEPT if key in source and not (key == "default" and not plain(source[key]))}
    if "const" in source:
        target["enum"] = [source["const"]]
    if "exclusiveMinimum" in source:
        target |= {"minimum": source["exclusiveMinimum"], "exclusiveMinimum": True}
    if "exclusiveMaximum" in source:
        target |= {"maximum": source["exclusiveMaximum"], "exclusiveMaximum": True}
    match source.get("type"):
        case "object":
            target |= convert_object(source, definitions, path, rules)
        case "array":
            target["items"] = convert(source["items"], definitions, (*path, "*"), rules)
            if path in MOST_ITEMS or path[0] == "spec":
                target.setdefault("maxItems", MOST_ITEMS.get(path, LIST_ITEMS))
            if keys := LIST_KEYS.get(path):  # any other list is atomic, which is the default
                target |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
        case "string" if path[0] == "spec" and "enum" not in target:
            target.setdefault("maxLength", STRING_CHARACTERS)
    if found := rules.get(path):
        target["x-kubernetes-validations"] = [rule.as_schema() for rule in found]
    return target


def convert_object(
    source: Schema, definitions: Mapping[str, Schema], path: tuple[str, ...], rules: Mapping[tuple[str, ...], Any]
) -> Schema:
    if "properties" in source:
        properties = {
            name: convert(value, definitions, (*path, name), rules)
            for name, value in source["properties"].items()
            if not stands_beside(path, name)
        }
        if not properties:
            return {}  # the API server leaves out a list of none, and a chart would take its own definition for another
        return {"properties": properties, **({"required": source["required"]} if source.get("required") else {})}
    values = source.get("additionalProperties", True)
    if isinstance(values, dict):
        return {
            "additionalProperties": convert(values, definitions, (*path, "*"), rules),
            **({"maxProperties": source.get("maxProperties", MAP_ENTRIES)} if path[0] == "spec" else {}),
        }
    return {"x-kubernetes-preserve-unknown-fields": True}


def stands_beside(path: tuple[str, ...], name: str) -> bool:
    """Whether a field of a kind's settings is written beside the kind, as all kinds share it."""
    return path[:-1] == ("spec", "stages", "*") and path[-1] in KINDS.values() and name in SHARED


def resolved(source: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Without $ref and without the null of an optional field; what stands beside them goes before."""
    while True:
        beside = {key: value for key, value in source.items() if key not in ("$ref", "anyOf", "allOf")}
        if "$ref" in source:
            source = {**definitions[source["$ref"].rpartition("/")[2]], **beside}
        elif "anyOf" in source and {"type": "null"} in source["anyOf"]:
            options = [option for option in source["anyOf"] if option != {"type": "null"}]
            source = {**(options[0] if len(options) == 1 else {"anyOf": options}), **beside}
        else:
            return source


def described(target: Schema, source: Schema) -> Schema:
    return {**target, "description": source["description"]} if "description" in source else target


def plain(value: Any) -> bool:
    """Whether a default is written into the CRD: scalars are; objects and lists speak for themselves."""
    return isinstance(value, str | int | float | bool) and value != ""


# --- files ---------------------------------------------------------------------------------------------------------


def generated() -> Iterator[tuple[Path, str]]:
    """Every generated file, by its path in the repository."""
    for resource in RESOURCES:
        definition = custom_resource_definition(resource)
        yield Path("crds") / f"{resource.plural}.yaml", HEADER + dump(definition)
        yield Path("charts/llm-operator/templates/crds") / f"{resource.plural}.yaml", chart_copy(definition)
        yield Path("docs/reference") / f"{resource.kind.lower()}.md", reference_page(resource, definition)


def dump(manifest: Schema) -> str:
    return yaml.dump(manifest, sort_keys=False, allow_unicode=True, width=120, Dumper=Dumper)


class Dumper(yaml.SafeDumper):
    """Writes every value out, as anchors would be hard to read, and what is short on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: Any = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style or fits(mapping.values(), mapping))

    def represent_sequence(self, tag: str, sequence: Any, flow_style: Any = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style or fits(sequence, sequence))


def fits(items: Iterable[Any], whole: Any) -> bool:
    """Whether a mapping or a list is read more easily when it is not spread over lines."""
    nested = any(isinstance(item, dict | list) for item in items)
    return len(str(whole)) < (ONE_LINE if nested else WRAPPED)


TEMPLATE = "llm-operator.crd"  # of the chart


def chart_copy(definition: Schema) -> str:
    """A template, so that `helm upgrade` upgrades it too: Helm never touches what lies in a chart's crds folder.

    Whether it is a part of the release is decided by the chart (`_crds.tpl`).
    """
    version = "VERSION"
    annotations = {"helm.sh/resource-policy": "keep", f"{GROUP}/chart": version}
    text = dump({**definition, "metadata": {**definition["metadata"], "annotations": annotations}})
    text = text.replace("{{", '{{ "{{" }}').replace(f"/chart: {version}", "/chart: {{ .Chart.Version | quote }}")
    name = f"{TEMPLATE}.{definition['spec']['names']['plural']}"
    body = f'{{{{- define "{name}" }}}}\n{text}{{{{- end }}}}\n'
    return f'{HEADER}{body}{{{{- include "{TEMPLATE}" (list . (include "{name}" .)) }}}}\n'


def reference_page(resource: Resource, definition: Schema) -> str:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [f"# {resource.kind}", "", f"`{GROUP}/{VERSION}`, short name `{resource.short}`. {resource.summary}", ""]
    for part in ("spec", "status"):
        lines += [f"## {part}", "", "| field | type | default | |", "|---|---|---|---|"]
        lines += list(field_rows(schema["properties"][part], part))
        lines.append("")
    rules = [(path, rule) for path, found in resource.rules.items() for rule in found]
    lines += ["## Rules", ""]
    lines += [f"* `{'.'.join(path).replace('.*', '[]')}{rule.field_path}` {rule.message}." for path, rule in rules]
    return "<!-- Generated from the models by `make generate`; not to be edited. -->\n" + "\n".join(lines) + "\n"


def field_rows(schema: Schema, path: str) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        if "description" not in field:
            continue  # Kubernetes documents it
        here = f"{path}.{name}"
        items = field.get("items", {}) if field.get("type") == "array" else field
        kind = field_type(field)
        default = "required" if name in required else f"`{field['default']}`" if "default" in field else ""
        yield f"| `{here}` | {kind} | {default} | {field.get('description', '').replace('|', chr(92) + '|')} |"
        yield from field_rows(items, here + ("[]" if items is not field else ""))


def field_type(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("pattern") == quantities.PATTERN:
        return "quantity"
    if field.get("type") == "array":
        return f"list of {field_type(field['items'])}"
    return str(field.get("type", "object"))


if __name__ == "__main__":
    sys.exit(write_or_check(generated()))
