"""`kubectl llm …`: reads the command line, and turns what is refused into one line and an exit code."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from kubectl_llm import change, logs, progress, report, screen, status, talk, top
from kubectl_llm.kubectl import KINDS, TRAININGS, ExitCode, Kubectl, Manifest, PluginError

Command = Callable[[Kubectl, argparse.Namespace], int]


def show_status(kubectl: Kubectl, asked: argparse.Namespace) -> int:
    """Fails if what is named has failed, so that a script can ask."""
    found = kubectl.named(KINDS, asked.name) if asked.name else kubectl.of_kinds(KINDS, *everywhere(asked))
    if asked.output == "json":
        write_json(found)
    elif not found:
        print("no LLMTraining, no LLMServing and no LLMApp in this namespace")
    for manifest in found if asked.output is None else []:
        print("\n".join(status.tree(manifest, screen.style(sys.stdout), screen.utc_now()).lines()))
    return ExitCode.FAILED if asked.name and any(map(status.failed, found)) else 0


def show_progress(kubectl: Kubectl, asked: argparse.Namespace) -> int:
    style = screen.style(sys.stdout)
    if not asked.watch:
        found = chosen(kubectl.items(TRAININGS, *everywhere(asked)), asked.names)
        if asked.output == "json":
            write_json(found)
        else:
            print("\n".join(progress.lines(found, style, with_namespace=asked.all_namespaces)))
        return 0
    drawn = screen.Screen()
    for found in progress.followed(kubectl.watch(TRAININGS, *everywhere(asked))):
        shown = [one for one in found if not asked.names or one["metadata"]["name"] in asked.names]
        drawn.draw(progress.lines(shown, style, with_namespace=asked.all_namespaces))
    return 0


def chosen(found: list[Manifest], names: list[str]) -> list[Manifest]:
    there = {one["metadata"]["name"] for one in found}
    if missing := [name for name in names if name not in there]:
        raise PluginError(f"there is no training {', '.join(missing)}", ExitCode.NOT_FOUND)
    return [one for one in found if not names or one["metadata"]["name"] in names]


def show_logs(kubectl: Kubectl, asked: argparse.Namespace) -> int:
    wanted = logs.Wanted(asked.stage, asked.attempt, asked.rank)
    return subprocess.call(logs.command(kubectl, asked.name, wanted, follow=asked.follow, tail=asked.tail))


def show_plan(_kubectl: Kubectl, asked: argparse.Namespace) -> int:
    if find_spec("llm_operator") is None:
        raise PluginError(
            "plan is the operator's own: pip install 'llm-operator[operator]' beside this plugin", ExitCode.USAGE
        )
    return subprocess.call([sys.executable, "-m", "llm_operator", "plan", *asked.files])


def suspend(kubectl: Kubectl, asked: argparse.Namespace) -> int:
    print(change.suspend(kubectl, asked.name, wanted=asked.command == "suspend"))
    return 0


def retry(kubectl: Kubectl, asked: argparse.Namespace) -> int:
    print(change.retry(kubectl, asked.name, screen.utc_now()))
    return 0


def show_report(kubectl: Kubectl, asked: argparse.Namespace) -> int:
    file = report.MARKDOWN if asked.markdown else report.HTML
    found = report.fetch(kubectl, asked.name, file, asked.image)
    to = asked.output or ("-" if asked.markdown else f"{asked.name}-{report.HTML}")
    if to == "-":
        sys.stdout.buffer.write(found)
        return 0
    try:
        Path(to).write_bytes(found)
    except OSError as error:
        raise PluginError(f"{to} can't be written: {error.strerror or error}") from None
    print(f"{to}: {len(found):,} bytes", file=sys.stderr)
    return 0


def show_top(kubectl: Kubectl, asked: argparse.Namespace) -> int:
    found = kubectl.of_kinds(KINDS, *everywhere(asked))
    if asked.output == "json":
        write_json(found)
    else:
        print("\n".join(top.lines(found, with_namespace=asked.all_namespaces)))
    return 0


def write_json(found: list[Manifest]) -> None:
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": found}, indent=2))


def everywhere(asked: argparse.Namespace) -> list[str]:
    return ["--all-namespaces"] if asked.all_namespaces else []


class Words(argparse.ArgumentParser):
    """Takes words after an option too, as kubectl does: `chat NAME --model M QUESTION`."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        found, rest = super().parse_known_args(args, namespace)
        takers = [action.dest for action in self._actions if action.nargs in ("*", "+") and not action.option_strings]
        if takers and not any(word.startswith("-") for word in rest):
            setattr(found, takers[0], [*getattr(found, takers[0]), *rest])
            rest = []
        return found, rest


def parser() -> argparse.ArgumentParser:
    where = Words(add_help=False)
    for name in ("--namespace", "--context", "--kubeconfig"):
        where.add_argument(*(["-n", name] if name == "--namespace" else [name]), help="as kubectl's")
    several = Words(add_help=False)
    several.add_argument("-A", "--all-namespaces", action="store_true", help="as kubectl's")
    several.add_argument("-o", "--output", choices=["json"], help="for scripts")
    top_level = Words("kubectl llm", description="See and steer LLMTraining, LLMServing and LLMApp.")
    commands = top_level.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Command, told: str, *more: Words) -> Words:
        made = commands.add_parser(name, help=told, description=told, parents=[where, *more])
        made.set_defaults(run=run)
        return made

    one = add(
        "status", show_status, "What each does, and why, as a tree. Exit code 1: the named one has failed.", several
    )
    one.add_argument("name", nargs="?", help="default: all; llmt/NAME, llms/NAME and llmapp/NAME name one kind")
    one = add("progress", show_progress, "A line for each training.", several)
    one.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    one.add_argument("-w", "--watch", action="store_true", help="all the while, by one watch")
    one = add("logs", show_logs, "Of all ranks or one, of any attempt whose pods are there.")
    one.add_argument("name")
    one.add_argument("--stage", help="default: the one whose turn it is")
    one.add_argument("--attempt", type=int, help="default: the newest")
    one.add_argument("--rank", type=int, help="default: all")
    one.add_argument("-f", "--follow", action="store_true", help="also what comes")
    one.add_argument("--tail", type=int, default=-1, help="lines of each pod; default: all")
    add("plan", show_plan, "What a file would do, without a cluster.").add_argument("files", nargs="+", metavar="FILE")
    for name, told in (("suspend", "Stop the pods; progress is kept."), ("resume", "Go on after suspend.")):
        add(name, suspend, told).add_argument("name")
    add("retry", retry, "Take up a training that failed, with new budgets.").add_argument("name")
    one = add("report", show_report, "What a training was asked, did and made; by a pod of its own where none runs.")
    one.add_argument("name")
    one.add_argument("-o", "--output", metavar="FILE", help="default: NAME-report.html; -: standard output")
    one.add_argument("--markdown", action="store_true", help="to standard output, if -o names no file")
    one.add_argument("--image", help="of that pod; default: the trainer's")
    one = add("chat", talk.talk, "Talk to a serving or an app, through a port-forward.")
    one.add_argument("name", help="llms/NAME and llmapp/NAME name one kind; without, a serving goes first")
    one.add_argument("message", nargs="*", help="one question; default: a conversation")
    one.add_argument("--model", help="an adapter's name; default: the base")
    one.add_argument("--system", help="a system message, of a serving")
    one.add_argument(
        "-o", "--output", choices=["json"], help="of one question: the answer with what an app tells beside"
    )
    one.add_argument("--api-key-file", help="default: the variable LLM_API_KEY")
    one.add_argument("--ca", help="certificates to believe, where the serving speaks TLS")
    add("top", show_top, "What trainings, servings and apps hold, and what comes of it.", several)
    return top_level


def main() -> None:
    asked = parser().parse_args()
    options = [(f"--{name}", getattr(asked, name)) for name in ("kubeconfig", "context", "namespace")]
    kubectl = Kubectl(tuple(word for name, value in options if value for word in (name, value)))
    try:
        sys.exit(asked.run(kubectl, asked))
    except PluginError as error:
        print(f"kubectl llm: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `kubectl llm status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
