"""Operations of an OpenAPI document as tools: the request that each is, and a JSON Schema of its arguments. Pure.

A subset of 3.0 and 3.1: parameters of path, query and header, and a body of JSON. What may be left out of a request and
can't be kept to is left out; what a request needs and can't be kept to is refused, by its place in the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from llm_app.tools import plain_yaml
from llm_app.tools.openapi_schema import Schemas, Unkeepable
from llm_app.tools.schema import SchemaError, expression, strict

MOST_BYTES = 1 << 20  # of a document
MOST_OPERATIONS = 32  # that a model chooses among
MOST_SHOWN = 8
VERSION = re.compile(r"3\.[01]\.[0-9]+")
METHODS = ("get", "post", "put", "patch", "delete")
PLACE = re.compile(r"\{([^{}]*)\}")
PATH = re.compile(r"/[A-Za-z0-9_.~!$&'()*+,;=:@%/-]*")  # but for its places
# OpenAPI says of the first three that they are none of its; the others are the connection's.
NO_PARAMETERS = ("accept", "content-type", "authorization", "host", "content-length", "connection", "transfer-encoding",
                 "cookie", "te", "upgrade", "trailer", "proxy-authorization", "proxy-connection", "expect")  # fmt: skip
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
SEPARATORS = {"form": ",", "simple": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
BODY = "body"
UNKNOWN = re.compile(r"[^A-Za-z0-9_-]")
NAME_LENGTH, DESCRIPTION_LENGTH = 64, 1024


class DocumentError(ValueError):
    """A document that is not taken. The message begins with the place in it."""


@dataclass(frozen=True)
class Parameter:
    """``argument``: the name that a model knows it by. ``separator``: of a list; empty: its key is repeated."""

    argument: str
    name: str
    place: Literal["path", "query", "header"]
    separator: str = ""


@dataclass(frozen=True)
class Operation:
    """``content``: the media type of the argument BODY, empty if it has none. ``left_out``: what a model can't give."""

    name: str
    description: str
    method: str
    path: str
    parameters: tuple[Parameter, ...]
    content: str
    schema: Mapping[str, Any]
    left_out: tuple[str, ...] = ()


def operations(text: str, wanted: Sequence[str] = (), headers: Sequence[str] = ()) -> list[Operation]:
    """Those of these identities, all that there are if it is empty. ``headers``: which a model doesn't give, as they
    are known already. Raises DocumentError.
    """
    document = read(text)
    found = dict(listed(document))
    if unknown := [one for one in wanted if one not in found]:
        there = ", ".join([*found][:MOST_SHOWN]) or "none"
        more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
        raise DocumentError(f"has no operation {unknown[0]!r}; its operationIds are {there}{more}")
    if not found:
        raise DocumentError("paths: no operation has an operationId, by which a model calls it; give it one")
    names = [*(wanted or found)]
    if len(names) > MOST_OPERATIONS:
        raise DocumentError(
            f"has {len(names)} operations, and a model chooses among {MOST_OPERATIONS} at most; name some in operations"
        )
    known = (*NO_PARAMETERS, *map(str.lower, headers))
    return [operation(document, known, name, *found[name]) for name in names]


def read(text: str) -> Mapping[str, Any]:
    """Raises DocumentError."""
    if (size := len(text.encode(errors="replace"))) > MOST_BYTES:
        raise DocumentError(f"has {size:,} bytes, and {MOST_BYTES:,} are taken; keep the operations that are used")
    try:
        made = plain_yaml.read(text)
    except plain_yaml.UnreadableError as error:
        raise DocumentError(f"is no YAML or JSON that can be read: {error}") from None
    if not isinstance(made, dict):
        raise DocumentError("must be an object with openapi and paths")
    if "swagger" in made:
        raise DocumentError(f"swagger: {made['swagger']} is not taken; convert it to OpenAPI 3.0 or 3.1")
    version = made.get("openapi")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise DocumentError(f"openapi: {version!r} is not taken; 3.0 and 3.1 are, written as a text such as '3.1.0'")
    return made


def listed(document: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]]:
    """Each operation by its identity: method, path, what the path has for all, itself. Raises DocumentError."""
    seen: set[str] = set()
    paths = document.get("paths")
    for path, item in (paths if isinstance(paths, dict) else {}).items():
        for method in METHODS:
            one = item.get(method) if isinstance(item, dict) else None
            name = one.get("operationId") if isinstance(one, dict) else None
            if not isinstance(name, str) or not isinstance(one, dict):
                continue
            if name in seen:
                raise DocumentError(f"paths.{path}.{method}.operationId: {name!r} stands twice; give each its own")
            seen.add(name)
            yield name, (method, path, item, one)


def operation(
    document: Mapping[str, Any], known: Sequence[str], name: str, method: str, path: str, item: Mapping[str, Any],
    one: Mapping[str, Any],
) -> Operation:  # fmt: skip
    """Raises DocumentError."""
    at = f"operation {name}"
    if not PATH.fullmatch(PLACE.sub("", path)):
        raise DocumentError(f"{at}: its path {path!r} must begin with / and have only signs that a URL's path has")
    schemas = Schemas(document)
    arguments = Arguments(schemas, at, known)
    for parameter in parameters_of(schemas, item, one, at):
        arguments.add(parameter)
    content = arguments.add_body(one.get("requestBody")) if method != "get" else ""
    if missing := {*PLACE.findall(path)} - {p.name for p in arguments.parameters if p.place == "path"}:
        raise DocumentError(f"{at}: {{{min(missing)}}} of its path is no parameter; describe it")
    schema = {"type": "object", "properties": arguments.properties, "required": arguments.required}
    try:
        expression(strict(schema))
    except SchemaError as error:
        raise DocumentError(f"{at}: {error}") from None
    said = [text.strip() for key in ("summary", "description") if isinstance(text := one.get(key), str)]
    return Operation(
        UNKNOWN.sub("_", name)[:NAME_LENGTH], " ".join(dict.fromkeys(filter(None, said)))[:DESCRIPTION_LENGTH],
        method.upper(), path, tuple(arguments.parameters), content, schema, tuple(arguments.left_out),
    )  # fmt: skip


def parameters_of(
    schemas: Schemas, item: Mapping[str, Any], one: Mapping[str, Any], at: str
) -> list[Mapping[str, Any]]:
    """An operation's own stand for those of its path."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for given in (item.get("parameters"), one.get("parameters")):
        if given is not None and not isinstance(given, list):
            raise DocumentError(f"{at}: parameters must be a list")
        for raw in given or ():
            try:
                parameter = schemas.resolved(raw, "parameters")
            except Unkeepable as error:
                raise DocumentError(f"{at}: {error}") from None
            name, place = parameter.get("name"), parameter.get("in")
            if not isinstance(name, str) or not name or not isinstance(place, str):
                raise DocumentError(f"{at}: each of its parameters must have name and in")
            found[name, place] = parameter
    return [*found.values()]


class Arguments:
    """What a model may give for an operation, gathered."""

    def __init__(self, schemas: Schemas, at: str, known: Sequence[str]) -> None:
        self._schemas, self._at, self._known = schemas, at, known
        self.parameters: list[Parameter] = []
        self.properties: dict[str, Any] = {}
        self.required: list[str] = []
        self.left_out: list[str] = []

    def add(self, given: Mapping[str, Any]) -> None:
        """Raises DocumentError if it is needed and can't be kept to."""
        name, place = given["name"], given["in"]
        if place == "header" and name.lower() in self._known:
            return
        needed = given.get("required") is True or place == "path"
        try:
            made = parameter(given, self._name(name, place))
            schema = self._schemas.argument(given["schema"], f"{name}.schema")
            if kind := unsent(schema, place):
                raise Unkeepable(f"{name}: {kind}")
        except Unkeepable as error:
            self._leave_out(name, error, needed=needed)
            return
        if isinstance(text := given.get("description"), str) and "description" not in schema:
            schema = {**schema, "description": text[:DESCRIPTION_LENGTH]}
        self.parameters.append(made)
        self._add(made.argument, schema, needed=needed)

    def add_body(self, given: Any) -> str:
        """Its media type. Raises DocumentError."""
        if given is None:
            return ""
        needed = True
        try:
            body = self._schemas.resolved(given, "requestBody")
            needed = body.get("required") is True
            content = body.get("content")
            kinds = content if isinstance(content, dict) else {}
            kind = next((one for one in kinds if is_json(one)), "")
            described = kinds[kind].get("schema") if kind and isinstance(kinds[kind], dict) else None
            if described is None:
                raise Unkeepable(f"requestBody: is no JSON with a schema, but {', '.join(kinds)[:200] or 'nothing'}")
            schema = self._schemas.argument(described, BODY)
        except Unkeepable as error:
            self._leave_out(BODY, error, needed=needed)
            return ""
        self._add(BODY, schema, needed=needed)
        return kind

    def _add(self, argument: str, schema: Mapping[str, Any], *, needed: bool) -> None:
        self.properties[argument] = schema
        if needed:
            self.required.append(argument)

    def _name(self, name: str, place: str) -> str:
        """Another one if two places have it; the body's is its own."""
        return f"{name}_{place}" if name == BODY or name in self.properties else name

    def _leave_out(self, name: str, error: Unkeepable, *, needed: bool) -> None:
        if needed:
            raise DocumentError(f"{self._at}: {error}; it is required, so leave the operation out, or change it")
        self.left_out.append(f"{name}: {error}")


def parameter(given: Mapping[str, Any], argument: str) -> Parameter:
    """Raises Unkeepable."""
    name, place = given["name"], given["in"]
    if place not in ("path", "query", "header"):
        raise Unkeepable(f"{name}: in {place!r} is not taken")
    if place == "header" and not HEADER_NAME.fullmatch(name):
        raise Unkeepable(f"{name!r}: is no name of a header")
    if "schema" not in given:
        raise Unkeepable(f"{name}: has no schema")
    default = "form" if place == "query" else "simple"
    style = given.get("style", default)
    if style not in SEPARATORS or (style != "simple") != (place == "query"):
        raise Unkeepable(f"{name}: style {style!r} is not taken")
    explode = given.get("explode", style == "form") is True
    separator = "" if place == "query" and explode else SEPARATORS[style]
    return Parameter(argument, name, cast(Literal["path", "query", "header"], place), separator)


def unsent(schema: Mapping[str, Any], place: str) -> str:
    """Why a value of this schema can't stand in a URL or a header; empty if it can."""
    kinds = [one.get("type") for one in schema.get("anyOf", [schema])]
    if "object" in kinds:
        return f"an object in a {place} is not taken"
    if "array" in kinds and schema.get("items", {}).get("type") in ("object", "array"):
        return f"a list of objects or lists in a {place} is not taken"
    return ""


def is_json(kind: str) -> bool:
    kind = kind.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
