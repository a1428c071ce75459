"""The examples that begin with text: a bilingual corpus, compression against xz, a conversation."""

from __future__ import annotations

import shutil
from pathlib import Path

from demo import run
from demo.alive import alive
from demo.corpus import build_corpus, summary
from demo.manifests import CORPUS_CLAIM
from demo.preferences import write_preferences
from demo.questions import build_questions, make_pairs
from demo.results import converse, show_figures
from demo.scenario import Applied, Scenario
from demo.setting import Setting


def gather(output: Path) -> dict[str, Path]:
    """The corpus, the questions and the preferences in one folder."""
    with alive("downloading and reading the packages"):
        corpus = build_corpus()
    folder = output / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(corpus, folder)
    print(summary(corpus))
    with alive("making questions and preferences"):
        build_questions(corpus, folder)
        write_preferences(make_pairs(corpus), folder)
    return {CORPUS_CLAIM: folder}


def show(setting: Setting, applied: Applied) -> None:
    """Figures and curves, then answers of the served model and of its adapters."""
    with alive("reading the run's history, and compressing the held-out text by xz and gzip"):
        show_figures(setting, applied.status, applied.output)
    run.say("A conversation with the served model, on questions it has not seen")
    serving = run.wait_for_serving(setting.kubectl, applied.name)
    for model in (applied.name, *(adapter["name"] for adapter in serving.get("adapters", []))):
        converse(setting, applied.folders[CORPUS_CLAIM] / "questions-heldout.jsonl", applied.name, model)


FROM_TEXT = Scenario("Text: Japanese and English documents of Debian packages", gather, show)
