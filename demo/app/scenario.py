"""The example of a product on a served model: the same questions without documents, with them, and with examples.

Then a conversation, an agent that has a tool, and two agents.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from demo import run
from demo.alive import alive
from demo.app.documents import questions, write
from demo.chat import post
from demo.fine_tune.model import NAME, build_model
from demo.html_text import CJK
from demo.kubectl import Kubectl
from demo.manifests import CORPUS_CLAIM, MODELS_CLAIM
from demo.scenario import Applied, Scenario
from demo.setting import Setting

WAYS = {"alone": "the model alone", "documents": "with documents", "examples": "with documents and examples"}
METRICS = ("hitAt1", "contains", "citation")
JAPANESE = re.compile(f"[{CJK}]")
AGENTS = {"agent": "An agent with a tool", "agents": "Two agents, one after the other"}
SHOWN = 2  # questions of each language in the conversation


def gather(output: Path) -> dict[str, Path]:
    """The model's folder; documents and questions."""
    with alive("unpacking the model"):
        model = build_model()
    folders = {claim: output / "app" / claim for claim in (CORPUS_CLAIM, MODELS_CLAIM)}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folders[MODELS_CLAIM] / NAME)
    write(folders[CORPUS_CLAIM])
    print(f"  {len(list((folders[CORPUS_CLAIM] / 'towns').iterdir()))} documents, {len(list(questions()))} questions")
    return folders


def show(setting: Setting, applied: Applied) -> None:
    """The scores of each way by language, then a conversation with what it cites, and what agents do for an answer."""
    run.wait_for_serving(setting.kubectl, applied.name)
    rows = {way: report_of(setting.kubectl, way) for way in WAYS}
    print("Each app asked by its evaluation Job:")
    print(table(rows))
    print("Each question is a request of its own, and each answer the likeliest one: their order changes nothing.")
    (applied.output / "figures.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    run.say("A conversation with the last, and what it cites")
    with setting.kubectl.forward("service/examples-app", 80) as url:
        for one in asked():
            converse(url, one)
    for app, said in AGENTS.items():
        ready(setting.kubectl, app)
        run.say(said)
        with setting.kubectl.forward(f"service/{app}-app", 80) as url:
            converse(url, asked()[1])
    print("So small a model calls the tool, and makes little of what it says; a larger one is wanted for agents.")
    page = f"kubectl -n {setting.kubectl.namespace} port-forward service/examples-app 8080:80"
    print(f"\nTo go on by yourself: {page}, and http://localhost:8080/ is a page.")


def ready(kubectl: Kubectl, app: str) -> None:
    def status() -> dict[str, Any]:
        return dict((kubectl.get("llmapp", app) or {}).get("status", {}))

    run.wait_for(
        f"LLMApp {app}", lambda: status().get("phase") == "Ready", 1800, lambda: str(status().get("phase", ""))
    )


def report_of(kubectl: Kubectl, app: str) -> list[dict[str, Any]]:
    """The rows of an app's report, once it is ready and was asked."""

    def status() -> dict[str, Any]:
        return dict((kubectl.get("llmapp", app) or {}).get("status", {}))

    def done() -> bool:
        conditions = {one["type"]: one["status"] for one in status().get("conditions", [])}
        return conditions.get("Ready") == "True" and bool((status().get("evaluation") or {}).get("report"))

    run.wait_for(f"LLMApp {app}", done, 1800, lambda: (status().get("evaluation") or {}).get("message", ""))
    report = status()["evaluation"]["report"].removeprefix("pvc://")
    return [json.loads(line) for line in run.read(kubectl, f"/volumes/{report}").splitlines()]


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Mean of 100 of each metric, English and Japanese apart."""
    lines = [f"{'':<30}" + "".join(f"{metric + ' ' + language:>14}" for metric in METRICS for language in ("en", "ja"))]
    for way, answers in rows.items():
        cells = [mean(answers, metric, japanese=japanese) for metric in METRICS for japanese in (False, True)]
        lines.append(f"{WAYS[way]:<30}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def mean(answers: list[dict[str, Any]], metric: str, *, japanese: bool) -> str:
    of = [one["scores"] for one in answers if bool(JAPANESE.search(one["question"])) == japanese]
    values = [scores[metric] for scores in of if metric in scores]
    return f"{100 * sum(values) / len(values):.0f}" if values else ""


def asked() -> list[str]:
    every = [one.question for one in questions()]
    japanese = [one for one in every if JAPANESE.search(one)]
    return [one for one in every if one not in japanese][:SHOWN] + japanese[:SHOWN]


def converse(url: str, question: str) -> None:
    answer = ask(url, question)
    print(f"\n  you:   {question}")
    for step in answer.get("steps", ()):
        print(
            f"  {step['agent']}: {step['tool']} {json.dumps(step['arguments'], ensure_ascii=False)}: {step['outcome']}"
        )
    print(f"  model: {said_in(answer)}")
    for one in answer["citations"]:
        if one["cited"]:
            print(f"         [{one['number']}] {one['title']}")


def ask(url: str, question: str) -> dict[str, Any]:
    return post(f"{url}/v1/chat/completions", {"messages": [{"role": "user", "content": question}]})


def said_in(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"]).strip()


APP = Scenario(
    "A public model, and documents about towns that are invented, in English and Japanese", gather, show, trains=False
)
