"""What is made of OpenAPI documents, right and odd ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_app.team import OpenApi, Tool
from llm_app.tools.offers import known_offers
from llm_app.tools.openapi import MOST_BYTES, DocumentError, Operation, operations
from llm_app.tools.schema import MOST_NODES, SchemaError, strict, without_nulls

SHOP = """
openapi: 3.0.3
info: {title: shop, version: "1"}
servers: [{url: https://elsewhere.example.com}]
paths:
  /items/{id}:
    parameters:
    - {name: id, in: path, required: true, schema: {type: string, maxLength: 20}}
    get:
      operationId: getItem
      summary: One item.
      parameters:
      - {name: tags, in: query, schema: {type: array, items: {type: string}}}
      - {name: fields, in: query, explode: false, schema: {type: array, items: {enum: [on, off]}}}
      - {$ref: '#/components/parameters/Trace'}
      - {name: Authorization, in: header, required: true, schema: {type: string}}
      - {name: filter, in: query, style: deepObject, schema: {type: object, properties: {a: {type: string}}}}
    post:
      operationId: order.item
      requestBody:
        required: true
        content:
          application/xml: {schema: {type: string}}
          application/json; charset=utf-8: {schema: {$ref: '#/components/schemas/Order'}}
components:
  parameters:
    Trace: {name: X-Trace, in: header, description: Where from., schema: {type: string}}
  schemas:
    Base: {type: object, properties: {id: {type: integer, readOnly: true}, note: {type: string, nullable: true}}}
    Node:
      type: object
      required: [v]
      properties:
        next: {$ref: '#/components/schemas/Node'}
        v: {type: integer, minimum: 0, exclusiveMinimum: true}
    Order:
      allOf:
      - $ref: '#/components/schemas/Base'
      - required: [count, id]
      - type: object
        properties:
          count: {type: integer, minimum: 1, format: int32, example: 3}
          code: {type: string, pattern: '^[A-Z]{3}$'}
          slow: {type: string, pattern: '^(\\w+)+$'}
          node: {$ref: '#/components/schemas/Node'}
          any: {}
"""


def shop(**paths: Any) -> str:
    return json.dumps({"openapi": "3.1.0", "paths": {f"/{name}": {"post": one} for name, one in paths.items()}})


def body(schema: Any, **more: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"operationId": "x", "requestBody": {"required": True, "content": content}, **more}


def test_operations_as_tools() -> None:
    get, order = operations(SHOP)
    assert (get.name, get.method, get.path, get.description) == ("getItem", "GET", "/items/{id}", "One item.")
    assert get.schema["required"] == ["id"]
    assert [*get.schema["properties"]] == ["id", "tags", "fields", "X-Trace"]
    assert get.schema["properties"]["fields"]["items"] == {"enum": ["on", "off"]}, "these are texts in YAML 1.2"
    assert {one.name: one.separator for one in get.parameters if one.place == "query"} == {"tags": "", "fields": ","}
    assert ["filter: " in one for one in get.left_out] == [True]
    assert (order.name, order.content) == ("order_item", "application/json; charset=utf-8")
    made = order.schema["properties"]["body"]
    assert made["required"] == ["count"], "what is read only is not written"
    assert [*made["properties"]] == ["note", "count", "code", "slow", "node"]
    assert made["properties"]["code"]["pattern"] == "^[A-Z]{3}$"
    assert "pattern" not in made["properties"]["slow"], "it might take for ever to look at"
    assert made["properties"]["node"] == {
        "type": "object", "properties": {"v": {"type": "integer", "minimum": 1}}, "required": ["v"]
    }, "a loop through what may be left out is cut"  # fmt: skip
    assert operations(SHOP, ["getItem"], ["x-trace"])[0].schema["properties"].keys() == {"id", "tags", "fields"}


def test_what_a_model_leaves_out_is_not_sent() -> None:
    [order] = operations(SHOP, ["order.item"])
    written = {"id": "a", "body": {"note": None, "count": 1, "code": None, "slow": None, "node": {"v": 2}}}
    assert not [*errors(order, written)]
    assert without_nulls(written, order.schema) == {"id": "a", "body": {"count": 1, "node": {"v": 2}}}
    referred = {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": {"type": "string"}}}}}
    assert without_nulls({"b": None}, referred) == {}


def errors(one: Operation, arguments: Any) -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(strict(one.schema)).iter_errors(arguments)


def test_3_0_and_3_1_say_the_same_of_nulls_and_bounds() -> None:
    told = []
    for version, schema in (
        ("3.0.0", {"type": "integer", "nullable": True, "minimum": 3, "exclusiveMinimum": True}),
        ("3.1.0", {"type": ["integer", "null"], "exclusiveMinimum": 3}),
    ):
        document = json.loads(shop(a=body({"type": "object", "properties": {"n": schema}, "required": ["n"]})))
        [one] = operations(json.dumps({**document, "openapi": version}))
        told.append(strict(one.schema)["properties"]["body"]["properties"]["n"])
    assert told[0] == told[1]


LEVELS = {
    f"L{level}": {"type": "object", "required": [f"p{n}" for n in range(20)],
                  "properties": {f"p{n}": {"$ref": f"#/components/schemas/L{level + 1}"} for n in range(20)}}
    for level in range(8)
}  # fmt: skip
LOOP = {"type": "object", "required": ["me"], "properties": {"me": {"$ref": "#/components/schemas/Loop"}}}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("", "must be an object"),
        ("[]", "must be an object"),
        ("a: &x [1]\nb: [*x, *x]", "alias"),
        ("a: " + "[" * 100_000, "nests more than 64 deep"),
        ("- " * 30_000 + "a", "nests more than 64 deep"),
        ('{"a":' * 100_000, "nests more than 64 deep"),
        ("a: 1\na: 2", "stands twice"),
        ("a: 1\n---\na: 2", "a second document"),
        ("\0", "line|character"),
        ('a: "\\ud800"', "character|surrogate"),
        ("<html><body>Login</body></html>", "must be an object|line"),
        ("x" * (MOST_BYTES + 1), "bytes, and"),
        ('swagger: "2.0"\npaths: {}', "convert it to OpenAPI 3"),
        ("openapi: 3.1\npaths: {}", "written as a text such as"),
        ("openapi: 3.2.0", "'3.2.0' is not taken"),
        ("openapi: 3.1.0", "no operation has an operationId"),
        ("openapi: 3.1.0\npaths: [1]", "no operation has an operationId"),
        ("openapi: 3.1.0\npaths: {/a: {get: {operationId: x}, post: {operationId: x}}}", "'x' stands twice"),
        ("openapi: 3.1.0\npaths: {a b: {get: {operationId: x}}}", "must begin with /"),
        ("openapi: 3.1.0\npaths: {/a?b=1: {get: {operationId: x}}}", "must begin with /"),
        ('openapi: 3.1.0\npaths: {"/{a}": {get: {operationId: x}}}', "{a} of its path is no parameter"),
        (shop(**{f"p{n}": {"operationId": f"o{n}"} for n in range(500)}), "has 500 operations"),
        (shop(a=body({"$ref": "https://example.com/a.json"})), "of another document"),
        (shop(a=body({"$ref": "#/components/schemas/Gone"})), "leads to nothing"),
        (shop(a=body({"type": "object"})), "object of any keys"),
        (shop(a=body({"not": {}})), "not and if"),
        (shop(a=body({"type": "object", "properties": {"f": {"type": "file"}}, "required": ["f"]})), "'file'"),
        (shop(a={"operationId": "x", "requestBody": {"required": True, "content": {"text/plain": {}}}}), "is no JSON"),
        (shop(a={"operationId": "x", "parameters": [{"name": "c", "in": "cookie", "required": True}]}), "'cookie'"),
        (shop(a={"operationId": "x", "parameters": 1}), "must be a list"),
        (shop(a={"operationId": "x", "parameters": [{"$ref": "#/paths"}]}), "must have name and in"),
        (json.dumps({**json.loads(shop(a=body(LEVELS["L0"]))), "components": {"schemas": LEVELS}}), "parts|deep"),
        (json.dumps({**json.loads(shop(a=body(LOOP))), "components": {"schemas": {"Loop": LOOP}}}), "to itself"),
        (json.dumps({**json.loads(shop(a=body({"$ref": "#/a"}))), "a": {"$ref": "#/a"}}), "to itself"),
    ],
)  # fmt: skip
def test_odd_documents_are_refused_by_their_place(document: str, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        operations(document)


def test_an_unknown_operation_is_told_with_those_that_there_are() -> None:
    with pytest.raises(DocumentError, match=r"no operation 'pay'; its operationIds are getItem, order\.item"):
        operations(SHOP, ["pay"])


def test_a_schema_that_doubles_with_each_level_is_refused() -> None:
    level: dict[str, Any] = {"anyOf": [{"$ref": "#/$defs/a"}] * 60}
    schema = {"properties": {"x": level}, "$defs": {"a": {"anyOf": [{"type": "string"}] * 60}}}
    with pytest.raises(SchemaError, match=f"more than {MOST_NODES} parts"):
        strict(schema)


def test_two_operations_of_one_name() -> None:
    document = shop(a={"operationId": "a.b"}, b={"operationId": "a_b"})
    tool = Tool(name="shop", openapi=OpenApi(url="https://shop.example.com", document=document))
    with pytest.raises(DocumentError, match="two are called 'shop_a_b'"):
        known_offers(tool)
