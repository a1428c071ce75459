"""The table of cases, and that of guarantees, name tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests import cases

TABLES = (cases.OPERATOR, cases.SERVING, cases.DATA)
TESTS = Path(cases.__file__).parent
GUARANTEES = (TESTS.parent / "docs/explanation/guarantees.md").read_text()
NAMED = [
    pytest.param(test, id=f"{case}: {test}") for table in TABLES for case, tests in table.items() for test in tests
]
NAMED += [pytest.param(test, id=f"guarantee: {test}") for test in re.findall(r"`tests/([^`]+::\w+)`", GUARANTEES)]


@pytest.mark.parametrize("test", NAMED)
def test_what_holds_a_case_exists(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in found


def test_every_case_has_one() -> None:
    assert [case for table in TABLES for case, tests in table.items() if not tests] == []
