"""The one place that runs kubectl: every error of it becomes one line and an exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import IO, Any

GROUP = "llm-operator.io"
TRAININGS = f"llmtrainings.{GROUP}"
SERVINGS = f"llmservings.{GROUP}"
APPS = f"llmapps.{GROUP}"
KINDS = (TRAININGS, SERVINGS, APPS)
"""The newest last: an older operator's cluster has only the first ones."""
WORDS = {"llmt": "training", "llms": "serving", "llma": "app"}  # by the beginning of a kind's or a short name
INSTALL = "install the chart (helm install llm-operator), or choose another cluster by --context"

Manifest = dict[str, Any]


class ExitCode(IntEnum):
    """What scripts go by."""

    FAILED = 1  # what was asked about has failed, or kubectl failed otherwise
    USAGE = 2
    NOT_FOUND = 4
    NOT_INSTALLED = 5  # the cluster has no such resource
    FORBIDDEN = 6
    UNREACHABLE = 7
    NO_KUBECTL = 127


class PluginError(Exception):
    """``message`` is one line for people."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


# What kubectl writes, and what it means. The first that is found counts.
OLDER = "this cluster has no LLMApp: its operator is older than apps, or not ours; upgrade the chart"
CAUSES = (
    ("the server doesn't have a resource type \"llmapp", ExitCode.NOT_INSTALLED, OLDER),
    ("the server doesn't have a resource type", ExitCode.NOT_INSTALLED, f"this cluster has no LLMTraining: {INSTALL}"),
    ("no matches for kind", ExitCode.NOT_INSTALLED, f"this cluster has no LLMTraining: {INSTALL}"),
    ("(Forbidden)", ExitCode.FORBIDDEN, ""),
    ("You must be logged in", ExitCode.FORBIDDEN, ""),
    ("(NotFound)", ExitCode.NOT_FOUND, ""),
    ("Unable to connect to the server", ExitCode.UNREACHABLE, ""),
    ("was refused - did you specify the right host or port", ExitCode.UNREACHABLE, ""),
    ("context was not found", ExitCode.USAGE, ""),
    ("does not exist", ExitCode.USAGE, ""),
)


def refusal(errors: str) -> PluginError:
    lines = [line.strip() for line in errors.splitlines() if line.strip() and not line.startswith(("E0", "E1", "W"))]
    told = (lines[-1] if lines else "kubectl failed and said nothing").removeprefix("error: ")
    told = told.removeprefix("Error from server ")
    for sign, code, meaning in CAUSES:
        if sign in errors:
            return PluginError(meaning or told, code)
    return PluginError(told)


@dataclass(frozen=True)
class Kubectl:
    """``options``: --kubeconfig, --context, --namespace and so on, as the user gave them."""

    options: tuple[str, ...] = ()
    program: str = "kubectl"

    def command(self, *arguments: str) -> list[str]:
        if shutil.which(self.program) is None:
            raise PluginError(
                "kubectl is not on the PATH: install it, this plugin speaks through it", ExitCode.NO_KUBECTL
            )
        return [self.program, *self.options, *arguments]

    def text(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise refusal(done.stderr)
        return done.stdout

    def items(self, kinds: str, *arguments: str) -> list[Manifest]:
        """Of a list or of one object; none where there is none."""
        text = self.text("get", kinds, *arguments, "-o", "json", "--ignore-not-found")
        found: Manifest = json.loads(text) if text.strip() else {"items": []}
        items: list[Manifest] = found.get("items", [found])
        return items

    def of_kinds(self, kinds: Sequence[str], *arguments: str) -> list[Manifest]:
        """Of those kinds, oldest first, that the cluster has: an operator may be older than this plugin."""
        try:
            return self.items(",".join(kinds), *arguments)
        except PluginError as error:
            if error.code != ExitCode.NOT_INSTALLED or len(kinds) == 1:
                raise
        return self.of_kinds(kinds[:-1], *arguments)

    def one(self, kind: str, name: str) -> Manifest:
        found = self.items(kind, name)
        if not found:
            raise PluginError(f"there is no {word_of(kind)} {name} in this namespace", ExitCode.NOT_FOUND)
        return found[0]

    def named(self, kinds: Sequence[str], name: str) -> list[Manifest]:
        """`NAME` of any of these kinds, in their order, or `llmt/NAME`, `llms/NAME`, `llmapp/NAME` of one."""
        kind, _, bare = name.rpartition("/")
        if kind:
            return [self.one(kind, bare)]
        found = self.of_kinds(kinds, bare)
        if not found:
            words = " and no ".join(map(word_of, kinds))
            raise PluginError(f"there is no {words} {bare} in this namespace", ExitCode.NOT_FOUND)
        return found

    def patch(self, kind: str, name: str, patch: Manifest) -> None:
        self.text("patch", kind, name, "--type=merge", "-p", json.dumps(patch))

    def watch(self, kinds: str, *arguments: str) -> Iterator[tuple[str, Manifest]]:
        """The type of each event and its object; first those that are there. One watch."""
        command = self.command("get", kinds, *arguments, "-o", "json", "--watch", "--output-watch-events")
        with running(command) as process:
            for event in documents(process.stdout):
                yield event["type"], event["object"]
            if process.wait():
                raise refusal(process.stderr.read() if process.stderr else "")


def word_of(kind: str) -> str:
    """For people; of a name that is none of ours, itself."""
    return WORDS.get(kind.lower()[:4], kind)


def documents(stream: IO[str] | None) -> Iterator[Any]:
    """As kubectl writes them one after another: each on one line, or indented, as all lines within are."""
    lines: list[str] = []
    for line in stream or ():
        lines.append(line)
        if line[0] in "{}" and line.rstrip().endswith("}"):
            yield json.loads("".join(lines))
            lines = []


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Its end is ours."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
