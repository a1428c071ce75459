"""The YAML on the pages is right, by the operator's own validation. tests/api/test_pages.py asks a real API server."""

from __future__ import annotations

import json

import pytest

from llm_operator.api.validation import load_app, load_serving, load_training
from llm_trainer.config import KINDS
from tests.page_manifests import UNCHECKED, Found, found
from tests.pages import DOCS, blocks, shown

LOAD = {"LLMTraining": load_training, "LLMServing": load_serving, "LLMApp": load_app}
OURS = [one for one in found() if one.is_ours]


@pytest.mark.parametrize("one", OURS, ids=lambda one: f"{one.place}-{one.kind}")
def test_what_a_page_shows_can_work(one: Found) -> None:
    assert one.manifest is not None
    LOAD[one.kind](one.manifest["spec"])


def test_most_of_them_are_found() -> None:
    """A test of nothing would pass."""
    assert len(OURS) > 30
    assert len([one for one in found() if one.values]) >= 5


def test_what_is_not_checked_is_there() -> None:
    assert set(UNCHECKED) <= {block.name for block in blocks("yaml")}


def test_rows_are_json() -> None:
    for block in blocks("json"):
        for line in block.text.splitlines():
            assert isinstance(json.loads(line), dict), block.place


def test_the_tutorials_rows_are_the_demos() -> None:
    from demo.fine_tune.rows import conversations, preferences

    rows = [*conversations(), *preferences()]
    seen = [json.loads(block.text) for block in blocks("json") if block.place.startswith("docs/tutorial/fine-tune.md")]
    assert len(seen) == 2
    assert all(row in rows for row in seen)


def test_python_compiles() -> None:
    for block in blocks("python"):
        compile(block.text, block.place, "exec")


def test_each_kind_of_stage_has_a_page_with_its_example() -> None:
    pages = {page.stem: shown(page.read_text()) for page in (DOCS / "howto/stages").glob("*.md")}
    for name, kind in KINDS.items():
        page = name.replace("_", "-")
        assert f"    {kind}:" in pages[page]
        assert f"[`{kind}`]({page}.md)" in pages["index"]
