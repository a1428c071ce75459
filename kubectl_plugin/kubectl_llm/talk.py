"""`kubectl llm chat`: who is asked, and what is written of an answer. Its text goes to stdout, all else to stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from kubectl_llm import chat, screen
from kubectl_llm.forward import forwarded, server
from kubectl_llm.kubectl import APPS, SERVINGS, ExitCode, Kubectl, Manifest, PluginError, word_of

JSON_FIELDS = ("citations", "steps", "problems", "limit", "approval")


def talk(kubectl: Kubectl, asked: argparse.Namespace) -> int:
    """One question, or a conversation until its end."""
    if asked.output and not asked.message:
        raise PluginError("-o json is of one question: kubectl llm chat NAME QUESTION -o json", ExitCode.USAGE)
    manifest = chosen(kubectl, asked.name)
    if asked.system and manifest["kind"] == "LLMApp":
        raise PluginError("--system is for a serving; what an app's model is told is spec.prompt", ExitCode.USAGE)
    to = server(manifest)
    with forwarded(kubectl, to) as port:
        client = chat.Client(to, port, key_of(asked), asked.ca)
        conversation = chat.Conversation(client, chat.chosen(client.models(), asked.model), asked.system)
        if (manifest.get("spec") or {}).get("sessions"):
            conversation.session = chat.new_session()
        if asked.message:
            once(conversation, " ".join(asked.message), as_json=asked.output == "json")
        else:
            converse(conversation)
    return 0


def chosen(kubectl: Kubectl, name: str) -> Manifest:
    """A serving goes before an app of its name, as it did when there were no apps."""
    first, *others = kubectl.named((SERVINGS, APPS), name)
    for other in others:
        said = f"{word_of(first['kind'])} {name} answers; the {word_of(other['kind'])} of this name is llmapp/{name}"
        print(said, file=sys.stderr)
    return first


def key_of(asked: argparse.Namespace) -> str | None:
    if not asked.api_key_file:
        return os.environ.get("LLM_API_KEY")
    try:
        return Path(asked.api_key_file).read_text().strip()
    except (OSError, ValueError) as error:
        raise PluginError(f"--api-key-file {asked.api_key_file} can't be read: {error}", ExitCode.USAGE) from None


def once(conversation: chat.Conversation, text: str, *, as_json: bool) -> None:
    if not as_json:
        answer(conversation, text)
        return
    said, told = "".join(conversation.say(text)), conversation.told
    more = {field: getattr(told, field) for field in JSON_FIELDS if getattr(told, field)}
    print(json.dumps({"model": conversation.model, "answer": said, **more}, indent=2, ensure_ascii=False))


def converse(conversation: chat.Conversation) -> None:
    print(f"{conversation.model} answers; {chat.HELP}", file=sys.stderr)
    while (line := read("> ")) is not None:
        if line.startswith("/"):
            if (told := conversation.command(line)) is None:
                break
            print(told, file=sys.stderr)
        elif line.strip():
            try:
                answer(conversation, line)
                while conversation.told.approval:
                    approve(conversation)
            except PluginError as error:
                print(f"\n{error}", file=sys.stderr)


def approve(conversation: chat.Conversation) -> None:
    """Whatever is no yes is a no."""
    line = read(f"{called(conversation.told.approval or {})}? [y/N] ") or ""
    agreed = line.strip().lower() in ("y", "yes")
    answer(conversation, "yes" if agreed else "no", agreed=agreed)


def answer(conversation: chat.Conversation, text: str, *, agreed: bool | None = None) -> None:
    conversation.told.on_step = show_step
    for piece in conversation.say(text, approve=agreed):
        # a model's words may be of several lines, and steer no terminal
        sys.stdout.write("".join(c if c in "\n\t" else screen.clean(c) or " " for c in piece))
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
    for line in beside(conversation.told):
        print(line, file=sys.stderr)


def show_step(step: Manifest) -> None:
    outcome = f"{screen.clean(step.get('outcome'))} in {screen.clean(step.get('seconds'))} s"
    print(f"{screen.clean(step.get('agent'))}: {called(step)}: {outcome}", file=sys.stderr)


def called(call: Manifest) -> str:
    """`stock(item="pump")`."""
    given = call.get("arguments")
    words = given.items() if isinstance(given, dict) else ()
    return (
        f"{screen.clean(call.get('tool'))}({', '.join(f'{k}={json.dumps(v, ensure_ascii=False)}' for k, v in words)})"
    )


def beside(told: chat.Told) -> list[str]:
    """Sources that the answer names, and what was not done."""
    named = [one for one in told.citations if isinstance(one, dict) and one.get("cited")]
    lines = [f"[{screen.clean(one.get('number'))}] {screen.clean(one.get('title'))}{place(one)}" for one in named]
    if told.citations and not named:
        lines.append(f"it names none of the {len(told.citations)} passages that it was shown")
    lines += [screen.clean(problem) for problem in told.problems]
    return [*lines, f"ended at the limit of {screen.clean(told.limit)}"] if told.limit else lines


def place(citation: Manifest) -> str:
    words = [screen.clean(citation[field]) for field in ("knowledge", "source") if citation.get(field)]
    return f"  ({', '.join(words)})" if words else ""


def read(prompt: str) -> str | None:
    try:
        return input(prompt if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None
