"""What a model may write as a call, and which addresses a tool may reach."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_app.tools.guard import BlockedAddressError, refuse
from llm_app.tools.schema import SchemaError, expression, strict, without_nulls

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 5},
        "count": {"type": "integer", "minimum": -13, "maximum": 1234},
        "kind": {"enum": ["a.b", 'c"d', 3, None]},
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "many": {"type": "array", "items": {"$ref": "#/$defs/one"}, "maxItems": 2},
        "maybe": {"type": "boolean"},
    },
    "required": ["text", "count", "kind", "code", "many"],
    "$defs": {"one": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}
RIGHT = {"text": "日本", "count": -13, "kind": None, "code": "ABC-0001", "many": [{"x": -1.5}], "maybe": None}


def written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_the_expression_takes_what_the_schema_takes_and_nothing_else() -> None:
    made = strict(SCHEMA)
    expected = re.compile(expression(made))
    jsonschema.validate(RIGHT, made)
    assert expected.fullmatch(written(RIGHT))
    wrong: dict[str, list[Any]] = {
        "text": ["too long", "\x01", "\x7f"],
        "count": [-14, 1235, 1.5],
        "kind": ["axb"],
        "code": ["abc-0001"],
        "many": [[{"x": 1}] * 3, [{}]],
        "maybe": [0],
    }
    for name, value in ((name, value) for name, values in wrong.items() for value in values):
        assert not expected.fullmatch(written({**RIGHT, name: value})), (name, value)
    assert not expected.fullmatch(written({**RIGHT, "more": 1}))
    assert "maybe" not in without_nulls(RIGHT, SCHEMA)
    assert "kind" in without_nulls(RIGHT, SCHEMA)


@given(st.integers(-3000, 3000), st.integers(0, 3000), st.integers(-7000, 7000))
def test_a_range_is_written_whole_and_no_more(low: int, width: int, value: int) -> None:
    schema = {"properties": {"n": {"type": "integer", "minimum": low, "maximum": low + width}}, "required": ["n"]}
    found = re.fullmatch(expression(strict(schema)), written({"n": value}))
    assert bool(found) == (low <= value <= low + width)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "string"}, '"type": "object"'),
        ({"properties": {"a": {}}}, "a: has the type None"),
        ({"properties": {"a": {"type": "string", "not": {}}}}, "a.not: is not taken"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "no definition"),
        ({"properties": {"a": {"$ref": "#"}}}, "no definition"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "properties": {"a": {"$ref": "#/$defs/a"}}}, "deep"),
        ({"additionalProperties": True}, "must be false"),
        ({"required": ["x"]}, "none of its properties"),
        ({"properties": {"a": {"type": "integer", "minimum": 5, "maximum": 4}}}, "in this order"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "a.pattern"),
        ({"properties": {"a": {"enum": [[]]}}}, "enum"),
    ],
)
def test_a_schema_that_can_not_be_kept_to_is_told_by_its_place(schema: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(says)):
        strict(schema)


@pytest.mark.parametrize("address", [
    "127.0.0.1", "10.96.0.1", "172.16.1.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1",
    "::1", "::", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "2002:7f00:0001::", "ff02::1",
    "64:ff9b::a9fe:a9fe", "64:ff9b::a60:1",
])  # fmt: skip
def test_addresses_inside_are_refused_unless_they_are_allowed(address: str) -> None:
    with pytest.raises(BlockedAddressError):
        refuse(address, [])
    refuse("1.1.1.1", [])
    refuse("2606:4700::1111", [])
    refuse("10.96.0.1", [ipaddress.ip_network("10.96.0.0/12")])
