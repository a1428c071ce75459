"""`make demo`: from bilingual text to a chat answer, on the built-in cluster or one's own."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from demo import run
from demo.alive import alive
from demo.corpus import build_corpus, summary
from demo.preferences import write_preferences
from demo.progress import cause
from demo.questions import build_questions, make_pairs
from demo.results import closing_words, converse, show_figures
from demo.setting import built_in, own

OUTPUT = Path("demo-output")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="a cluster of your own")
    parser.add_argument("--registry", help="a registry that its nodes pull from and this machine pushes to")
    parser.add_argument("--storage-class", help="ReadWriteMany; default: the cluster's default class")
    parser.add_argument("--example", type=Path, default=run.EXAMPLE, help="an LLMTraining and its LLMServing")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where curves and figures go")
    return parser.parse_args()


def gather_text(output: Path) -> Path:
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
    return folder


def main() -> None:
    options = arguments()
    began = time.monotonic()
    run.say("Cluster and images")
    setting = own(options.kubeconfig, options.registry, options.storage_class) if options.registry else built_in()
    kubectl = setting.kubectl

    run.say("Install the operator")
    run.install(setting.helm, kubectl, setting.images)

    run.say("Text: Japanese and English documents of Debian packages")
    corpus = gather_text(options.output)
    run.upload(kubectl, setting.images.trainer, setting.storage_class, corpus)

    name = options.example.stem
    run.say(f"kubectl apply -f {options.example}")
    kubectl.run("apply", "-f", str(options.example))
    status = run.follow(kubectl, name)
    if status["phase"] == "Failed":
        raise SystemExit(f"the training failed: {cause(status)}")
    with alive("reading the run's history, and compressing the held-out text by xz and gzip"):
        show_figures(setting, status, options.output)

    run.say("A conversation with the served model, on questions it has not seen")
    serving = run.wait_for_serving(kubectl, name)
    for model in (name, *(adapter["name"] for adapter in serving.get("adapters", []))):
        converse(setting, corpus / "questions-heldout.jsonl", name, model)

    run.say("What kubectl shows")
    print(kubectl.run("get", "llmt,llms"))
    print(kubectl.run("get", "pods", "-o", "wide"))
    print(closing_words(setting, name, options.output))
    run.say(f"Done in {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
