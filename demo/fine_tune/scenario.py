"""The example that begins with a public model: what it knows before and after, on questions that it has not seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from demo import run
from demo.alive import alive
from demo.fine_tune.model import NAME, build_model
from demo.fine_tune.rows import held_out_facts, held_out_general, write_rows
from demo.fine_tune.score import answers, score, side_by_side, table
from demo.manifests import CORPUS_CLAIM, MODELS_CLAIM
from demo.report import draw_curves
from demo.results import change_of, evaluations
from demo.scenario import Applied, Scenario
from demo.setting import Setting

ADAPTER = "facts"
QUESTIONS = {"facts that the base can't know": held_out_facts, "what anybody knows": held_out_general}


def gather(output: Path) -> dict[str, Path]:
    """The model's folder, and the rows."""
    with alive("unpacking the model"):
        model = build_model()
    folders = {claim: output / "fine-tune" / claim for claim in (CORPUS_CLAIM, MODELS_CLAIM)}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folders[MODELS_CLAIM] / NAME)
    write_rows(folders[CORPUS_CLAIM])
    for file in sorted(folders[CORPUS_CLAIM].iterdir()):
        print(f"  {file.name}: {len(file.read_text().splitlines())} rows")
    return folders


def show(setting: Setting, applied: Applied) -> None:
    """Each stage's held-out figures, then both models' answers to the same questions."""
    stages = [stage["name"] for stage in applied.status["stages"] if stage["kind"] != "prepareData"]
    histories = {stage: run.read_history(setting.kubectl, applied.status, stage) for stage in stages}
    draw_curves(histories, applied.output / "curves.png")
    print("On what each stage holds out, from its first evaluation to its last:")
    for stage, history in histories.items():
        print(f"  {stage:<10} {change_of(evaluations(history))}")
    run.say("The same questions to the base and to the adapter; neither has seen them")
    run.wait_for_serving(setting.kubectl, applied.name)
    scores = {}
    with setting.kubectl.forward(f"service/{applied.name}-serving", 80) as url:
        for name, questions in QUESTIONS.items():
            before, after = (answers(url, model, questions()) for model in (applied.name, ADAPTER))
            print(f"\n{name}:{side_by_side(before, after)}")
            scores[name] = (score(before), score(after))
    print(f"\n{table(scores)}")
    (applied.output / "figures.json").write_text(json.dumps(scores, indent=1))


FINE_TUNE = Scenario("A public model of 135 million parameters, and facts about towns that are invented", gather, show)
