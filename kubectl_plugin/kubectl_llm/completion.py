"""`kubectl_complete-llm`: kubectl (1.26 and later) runs it for the words of `kubectl llm`, in cobra's form."""

from __future__ import annotations

import sys

from kubectl_llm.kubectl import APPS, KINDS, SERVINGS, TRAININGS, Kubectl, PluginError

COMMANDS = {
    "status": "what each does, and why, as a tree",
    "progress": "a line for each training",
    "logs": "of all ranks or one, of any attempt",
    "plan": "what a file would do",
    "suspend": "stop the pods, keep the progress",
    "resume": "go on after suspend",
    "retry": "take up a training that failed",
    "report": "what a training was asked, did and made",
    "chat": "talk to a serving or an app",
    "top": "what trainings, servings and apps hold",
}
NAMES: dict[str, tuple[str, ...]] = {
    "status": KINDS,
    "chat": (SERVINGS, APPS),
    **dict.fromkeys(("progress", "logs", "report", "suspend", "resume", "retry"), (TRAININGS,)),
}
NO_FILES, FILES = ":4", ":0"  # cobra's directives


def words(arguments: list[str], kubectl: Kubectl) -> tuple[list[str], str]:
    """Candidates for the last word, which may be empty, and the directive."""
    *before, last = arguments or [""]
    given = [word for word in before if not word.startswith("-")]
    if not given:
        return [f"{name}\t{told}" for name, told in COMMANDS.items() if name.startswith(last)], NO_FILES
    if given[0] == "plan":
        return [], FILES
    kinds = NAMES.get(given[0])
    if kinds is None or last.startswith("-"):
        return [], NO_FILES
    try:
        found = kubectl.of_kinds(kinds)
    except PluginError:
        return [], NO_FILES  # a shell's prompt is no place for an error
    return sorted({one["metadata"]["name"] for one in found if one["metadata"]["name"].startswith(last)}), NO_FILES


def options(arguments: list[str]) -> tuple[str, ...]:
    """Those that decide where to look."""
    found: list[str] = []
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if word in ("-n", "--namespace", "--context", "--kubeconfig"):
            found += [word, following]
        elif word.startswith(("--namespace=", "--context=", "--kubeconfig=")):
            found.append(word)
    return tuple(found)


def main() -> None:
    arguments = sys.argv[1:]
    found, directive = words(arguments, Kubectl(options(arguments[:-1])))
    sys.stdout.write("".join(f"{word}\n" for word in [*found, directive]))
