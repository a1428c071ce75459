"""What is read of the ConfigMaps of sources, whatever a spec or the API server says."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.apps.config_maps import Content, Document, documents_in, named_in, read, refused
from llm_operator.apps.observe import serving_of
from llm_operator.apps.room import claim_place, places, serving_place
from tests.app_specs import APP, ORDERS, PLAIN
from tests.unit.world import custom_resource


@pytest.mark.parametrize(
    ("knowledge", "names"),
    [
        (APP["knowledge"], ["faq"]),
        (None, []),
        ("x", []),
        ([1, {"sources": 1}, {"sources": [1, {"configMap": 1}, {"configMap": {"name": 1}}]}], []),
        (
            [{"sources": [{"configMap": {"name": "a", "keys": 1}}, {"configMap": {"name": "b", "keys": [1]}}]}],
            ["a", "b"],
        ),
        ([{"sources": [{"configMap": {"name": name}} for name in ("a,metadata.name=b", "x" * 254, "a/b", "語")]}], []),
    ],
)
def test_names_of_any_spec(knowledge: Any, names: list[str]) -> None:
    assert [name for name, _ in named_in({"spec": {"knowledge": knowledge}})] == names


def test_the_keys_of_all_sources_that_name_a_config_map() -> None:
    sources = [{"configMap": {"name": "a", "keys": keys}} for keys in (["x", "y"], ["z"])]
    assert named_in({"spec": {"knowledge": [{"sources": sources}]}}) == (("a", frozenset("xyz")),)
    many = [{"configMap": {"name": f"a{number}", "keys": [str(key) for key in range(9000)]}} for number in range(500)]
    found = named_in({"spec": {"knowledge": [{"sources": many}]}})
    assert (len(found), max(len(keys) for _, keys in found)) == (161, 1024)


def test_what_a_config_map_holds() -> None:
    metadata = {"resourceVersion": "7"}
    one, other = (
        read("faq", {"a", "c"}, [{"metadata": metadata, "data": {"a": text, "b": ""}}]) for text in ("x", "y")
    )
    assert one.known
    assert one.keys.keys() == other.keys.keys() == {"a"}
    assert one.keys != other.keys
    assert one.digest != other.digest
    assert one.some == ("a", "b")
    assert "does not exist" in read("faq", (), []).problem
    assert "has no data" in read("faq", (), [{"metadata": metadata, "binaryData": {"a": "eA=="}}]).problem
    assert not Content().known


def test_of_a_config_map_of_a_hundred_thousand_keys_little_is_kept() -> None:
    """Any number of apps may name it."""
    data = {f"{number:x}": "" for number in range(100_000)}
    found = read("faq", {"5", "7"}, [{"metadata": {"resourceVersion": "7"}, "data": data}])
    assert len(str(found)) < 300
    assert found.keys.keys() == {"5", "7"}


def test_documents_of_tools_are_looked_at_by_what_the_tool_wants() -> None:
    openapi = {"configMap": {"name": "shop", "key": "a.yaml"}, "operations": ["get", 1], "headers": [{"name": "X"}, 2]}
    app = {"spec": {"tools": [{"openapi": openapi}, {"openapi": 1}, 1, {"openapi": {"configMap": {"name": 1}}}]}}
    assert named_in(app) == (("shop", frozenset({"a.yaml"})),)
    [one] = documents_in(app)
    assert one == Document("shop", "a.yaml", ("get",), ("X",))
    for data, says in (({"a.yaml": "swagger: '2.0'"}, "convert it"), ({"a.yaml": ORDERS}, "no operation 'get'")):
        told = refused([one], [{"data": data}])
        assert says in told[one]
        assert len(told[one]) <= 512
    assert not refused([Document("shop", "a.yaml")], [{"data": {"a.yaml": ORDERS}}])
    assert not refused([one], [{"data": {"b.yaml": "x"}}])
    assert not refused([one], [])


def test_where_the_cache_finds_an_app() -> None:
    app = custom_resource("LLMApp", "help", APP)
    assert set(places(app)) == {serving_place("team", "chat"), claim_place("team")}
    assert set(places(custom_resource("LLMApp", "help", PLAIN))) == {serving_place("team", "chat")}
    wrong: list[Any] = [{}, {"model": 1}, {"model": {"serving": []}}, {"model": {"serving": {"name": 1}}}]
    for spec in wrong:
        assert serving_of({"spec": spec}) == ""
