"""Private names of libraries stand in one file, and are what they were when somebody read them."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest

import llm_trainer
from llm_trainer.runtime.upstream import IMPORTED, WATCHED, Upstream

ROOT = Path(llm_trainer.__file__).parent
# os._exit, which Python documents; torch.Tensor._version, of which there is no source: it counts writes in place
STANDARD = {"_exit", "_version"}


def digest_of(source: str) -> str:
    module, _, name = source.partition(":")
    found = reduce(getattr, name.split("."), importlib.import_module(module))
    return hashlib.sha256(textwrap.dedent(inspect.getsource(found)).encode()).hexdigest()[:12]


@pytest.mark.parametrize("watched", WATCHED, ids=lambda watched: watched.source)
def test_it_is_what_was_read(watched: Upstream) -> None:
    found = digest_of(watched.source)
    assert found == watched.digest, (
        f"{watched.source} is another than the one that was read ({watched.why}): read it, and what relies on it; if "
        f"that still holds, its digest in llm_trainer/runtime/upstream.py is {found}"
    )


def test_every_private_name_is_listed() -> None:
    """A name with an underscore that is used and that nothing of ours defines is a library's."""
    listed = {name for watched in WATCHED for name in watched.names} | STANDARD
    trees = {file.relative_to(ROOT): ast.parse(file.read_text()) for file in ROOT.rglob("*.py")}
    ours = {name for tree in trees.values() for name in defined(tree)}
    used = {name: file for file, tree in trees.items() for name in private_attributes(tree) if name not in ours}
    left = {name: str(used[name]) for name in set(used) - listed}
    assert not left, f"private names of libraries: list them in runtime/upstream.py: {left}"
    imported = {name for tree in trees.values() for name in private_imports(tree)}
    assert imported == {name.rpartition(".")[2] for name in IMPORTED}


def test_every_method_that_is_replaced_is_listed() -> None:
    """A method of ours before one of TRL's would be dead if TRL called it by another name."""
    listed = {name for watched in WATCHED for name in watched.names}
    for module in ("sft", "reward_model", "dpo", "kto", "grpo"):
        order = importlib.import_module(f"llm_trainer.stages.{module}").Trainer.__mro__
        ours = [kind for kind in order if kind.__module__.startswith("llm_trainer")]
        theirs = {name for kind in order if kind not in ours for name in vars(kind)}
        replaced = {name for kind in ours for name in vars(kind) if is_private(name) and name in theirs}
        assert replaced <= listed, f"{module}: list them in runtime/upstream.py: {replaced - listed}"


def defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def private_attributes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr


def private_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("llm_"):
            parts = (node.module or "").split(".")
            if any(map(is_private, parts)):
                yield parts[-1]
            yield from (alias.name for alias in node.names if is_private(alias.name))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
