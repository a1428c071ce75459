"""Commands on the pages are those that there are, by their own parsers. tests/api/test_pages.py: helm and kubectl."""

from __future__ import annotations

import argparse
import contextlib
import re
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from kubectl_llm.__main__ import parser as plugin_parser
from llm_operator.prompts import options as prompt_options
from tests.pages import REPOSITORY, Command, commands

MAKEFILES = "\n".join(file.read_text() for file in (REPOSITORY / "Makefile", REPOSITORY / "tests/cluster/cluster.mk"))
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILES, re.MULTILINE))
TOP = tuple(f"{entry.name}/" for entry in REPOSITORY.iterdir() if entry.is_dir() and not entry.name.startswith("."))
UNCHECKED = {
    "buildah": "builds images; its files are looked for",
    "podman": "runs them",
    "curl": "asks a server that a reader has",
    "hf": "the Hugging Face hub's own program",
    "openssl": "makes a random key",
    "tar": "of the system",
    "jq": "of the system",
    "head": "of the system",
    "source": "of the shell",
    "python3": "makes an environment",
    "pre-commit": "of the development environment",
}
OF_API_TESTS = {"kubectl", "helm"}


def said_by(parser: argparse.ArgumentParser, words: list[str]) -> str:
    """What the parser says against them; prose may leave out what a command is about."""

    class Refused(Exception):  # noqa: N818
        pass

    def error(message: str) -> None:
        raise Refused(message)

    for one in every(parser):
        one.error = error  # type: ignore[assignment,method-assign]
    try:
        with contextlib.suppress(SystemExit):
            parser.parse_args(words)
    except Refused as refused:
        return str(refused)
    return ""


def every(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    below = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return [parser, *(found for one in below for child in one.choices.values() for found in every(child))]


def check_plugin(words: tuple[str, ...]) -> str:
    said = said_by(plugin_parser(), list(words[2:]))
    return "" if said.startswith("the following arguments are required") else said


def check_make(words: tuple[str, ...]) -> str:
    for word in words[1:]:
        name, assigned, _ = word.partition("=")
        if assigned and f"$({name})" not in MAKEFILES and f"$({name})" not in MAKEFILES.replace("$(if ", ""):
            return f"no recipe reads {name}"
        if not assigned and name not in TARGETS:
            return f"there is no target {name}"
    return ""


def check_plan(words: tuple[str, ...]) -> str:
    return "" if words[3] == "plan" else f"llm_operator knows no {words[3]}"


def check_python(words: tuple[str, ...]) -> str:
    module = words[2]
    if module == "llm_operator" and words[3:]:
        return said_by(prompt_options(), list(words[4:])) if words[3] == "prompt" else check_plan(words)
    try:
        return "" if find_spec(module) else f"there is no module {module}"
    except ModuleNotFoundError:
        return f"there is no module {module}"


def check_pip(words: tuple[str, ...]) -> str:
    for word in words[2:]:
        match = re.fullmatch(r"(?:llm-operator|(\.(?:/[\w-]+)?))(?:\[([\w-]+)\])?", word)
        if match is None:
            continue
        file = REPOSITORY / (match[1] or ".") / "pyproject.toml"
        if not file.exists():
            return f"{word} is no project"
        if match[2] and match[2] not in tomllib.loads(file.read_text())["project"]["optional-dependencies"]:
            return f"there is no extra {match[2]}"
    return ""


CHECKS: dict[str, Callable[[tuple[str, ...]], str]] = {"make": check_make, "python": check_python, "pip": check_pip}


def problem(command: Command) -> str:
    words = command.words
    if missing := [word for word in words if word.startswith(TOP) and not there(word)]:
        return f"there is no {', '.join(missing)}"
    if words[:2] == ("kubectl", "llm"):
        return check_plugin(words) if words[2:] else ""
    if check := CHECKS.get(words[0]):
        return check(words)
    return "" if words[0] in OF_API_TESTS | set(UNCHECKED) else "nobody checks it: add a check, or say in UNCHECKED why"


def there(word: str) -> bool:
    """Of files that a build makes nothing is asked."""
    return bool(list(REPOSITORY.glob(word.rstrip("/")))) or Path(word).parts[0] in ("site", "dist")


@pytest.mark.parametrize("page", sorted({command.place.partition(":")[0] for command in commands()}))
def test_commands_of_a_page(page: str) -> None:
    wrong = {f"{one.place}: {' '.join(one.words)}": said
             for one in commands() if one.place.startswith(f"{page}:") and (said := problem(one))}  # fmt: skip
    assert not wrong


def test_a_wrong_command_is_seen() -> None:
    for line in (
        ("kubectl", "llm", "status", "--colour"), ("kubectl", "llm", "explain"), ("make", "tests"),
        ("make", "demo", "EXMPLE=x"),
        ("python", "-m", "demo.nothing"), ("python", "-m", "llm_operator", "plans"), ("pip", "install", ".[plan]"),
        ("kubectl", "apply", "-f", "examples/none.yaml"), ("frobnicate",),
    ):  # fmt: skip
        assert problem(Command("here", line)), line


def test_files_that_plans_name_are_beside_the_page_or_in_the_repository() -> None:
    planned = [one for one in commands() if one.words[:4] == ("python", "-m", "llm_operator", "plan")]
    for one in planned:
        page = REPOSITORY / one.place.partition(":")[0]
        for file in one.words[4:]:
            assert file == "FILE" or (REPOSITORY / file).exists() or (page.parent / file).exists(), one
