"""`make demo`: from bilingual text to a chat answer, on the built-in cluster or one's own."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from demo import report, run
from demo.chat import ask
from demo.corpus import build_corpus
from demo.kubectl import Kubectl
from demo.questions import build_questions, compressed_bits_per_byte
from demo.setting import Setting, built_in, own

OUTPUT = Path("demo-output")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="a cluster of your own")
    parser.add_argument("--registry", help="a registry that its nodes pull from and this machine pushes to")
    parser.add_argument("--storage-class", default="", help="ReadWriteMany; default: the cluster's default class")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where curves and figures go")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    began = time.monotonic()
    run.say("Cluster and images")
    setting = own(options.kubeconfig, options.registry, options.storage_class) if options.registry else built_in()
    kubectl = setting.kubectl

    run.say("Install the operator")
    run.install(setting.helm, kubectl, setting.images)

    run.say("Text: Japanese and English documents of Debian packages")
    corpus = build_corpus()
    build_questions(corpus)
    print((corpus / "SUMMARY.txt").read_text())
    run.upload(kubectl, setting.images.trainer, setting.storage_class, corpus)

    run.say(f"kubectl apply -f {run.EXAMPLE}")
    kubectl.run("apply", "-f", str(run.EXAMPLE))
    status = run.follow(kubectl)
    if status["phase"] == "Failed":
        raise SystemExit(f"the training failed: {run.progress.cause(status)}")
    show_results(options.output, kubectl, corpus)
    converse(kubectl, corpus, options.output)
    run.say(f"Done in {(time.monotonic() - began) / 60:.0f} minutes")
    print(closing_words(setting))


if __name__ == "__main__":
    main()
