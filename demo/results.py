"""What came out: compression against xz, curves, the conversation, and where to look further."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from demo import held_out, run
from demo.alive import alive
from demo.baseline import compressed_bits_per_byte
from demo.chat import Answer, ask
from demo.html_text import CJK
from demo.report import compression_table, draw_curves
from demo.setting import Setting

ASKED = 60  # held-out questions, half of them in each language
SHOWN = 4  # of them in each language
LANGUAGE = "bitsPerByte/language/"
JAPANESE = re.compile(f"[{CJK}]")
REPETITION_PENALTY = 1.15  # a model this small repeats itself when each next word is simply the likeliest


def show_figures(setting: Setting, status: dict[str, Any], output: Path) -> None:
    """Compression against xz, every stage's held-out figures, and the curves as a picture."""
    stages = [stage["name"] for stage in status["stages"] if stage["kind"] != "prepareData"]
    histories = {stage: run.read_history(setting.kubectl, status, stage) for stage in stages}
    draw_curves(histories, output / "curves.png")
    base = evaluations(histories[stages[0]])
    data_uri = next(stage for stage in status["stages"] if stage["kind"] == "prepareData")["result"]["uri"]
    held_out.fetch(setting.kubectl, f"/volumes/{data_uri.removeprefix('pvc://')}", output / "data")
    texts = held_out.texts_by_language(output / "data")
    last = {name.removeprefix(LANGUAGE): value for name, value in base[-1].items() if name.startswith(LANGUAGE)}
    print("\nHeld-out bits per byte; less is better:")
    print(compression_table(last, {language: compressed_bits_per_byte(found) for language, found in texts.items()}))
    print("through the run: " + " → ".join(f"{figures['bitsPerByte']:.2f}" for figures in base))
    print("On what each stage holds out, from its first evaluation to its last:")
    for stage in stages[1:]:
        print(f"  {stage:<10} {change_of(evaluations(histories[stage]))}")
    (output / "figures.json").write_text(
        json.dumps({stage: evaluations(rows) for stage, rows in histories.items()}, indent=1)
    )


def evaluations(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [row["evaluation"] for row in history if "evaluation" in row]


def change_of(figures: list[dict[str, float]]) -> str:
    """Each figure as "name before → after"; before fine-tuning the loss is told as baseLoss."""
    first, last = figures[0], figures[-1]
    before = {**first, **({"loss": last["baseLoss"]} if "baseLoss" in last else {})}
    return ", ".join(f"{name} {before[name]:.3f} → {last[name]:.3f}" for name in last if name != "baseLoss")


def converse(setting: Setting, questions: Path, serving: str, model: str) -> None:
    """Ask one of a serving's models what it was not trained on."""
    pairs = [json.loads(line)["messages"] for line in questions.read_text().splitlines()]
    asked = [messages[0]["content"] for messages in pairs]
    by_language = {
        "en": [question for question in asked if not JAPANESE.search(question)][: ASKED // 2],
        "ja": [question for question in asked if JAPANESE.search(question)][: ASKED // 2],
    }
    every: list[Answer] = []
    asking = alive(f"asking {model} {sum(map(len, by_language.values()))} questions", lambda: f"{len(every)} answers")
    with setting.kubectl.forward(f"service/{serving}-serving", 80) as url, asking:

        def answer(question: str) -> Answer:
            reply = ask(url, model, question, repetition_penalty=REPETITION_PENALTY)
            every.append(reply)
            return reply

        with ThreadPoolExecutor(4) as pool:
            answers = {language: list(pool.map(answer, found)) for language, found in by_language.items()}
    print(f"\nmodel {model}:")
    for language, found in by_language.items():
        for question, reply in list(zip(found, answers[language], strict=True))[:SHOWN]:
            print(f"\n  you:   {question}\n  model: {reply.text}")
    ended = sum(reply.ended for reply in every)
    print(f"\n{model} ended {ended} of {len(every)} answers to held-out questions by itself")


def closing_words(setting: Setting, name: str, output: Path) -> str:
    """What was made, and how to look at it."""
    lines = [
        "What was created:",
        f"  namespace {setting.kubectl.namespace}: what {name}.yaml names, its pods and claims",
        "  namespace llm-operator: the operator",
        f"  {output}: figures.json, and curves.png of a training",
        "Look at it:",
        f"  {setting.environment}",
        f"  kubectl -n {setting.kubectl.namespace} get llmt,llms,llmapp,pods -o wide",
        f"  kubectl -n {setting.kubectl.namespace} port-forward service/{name}-serving 8000:80",
        "  curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\",
        f'    -d \'{{"model": "{name}", "messages": [{{"role": "user", "content": "What is a kernel?"}}]}}\'',
    ]
    if setting.built_in:
        lines += ["Take it down:", "  make cluster-down"]
    return "\n".join(lines)
