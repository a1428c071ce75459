"""`make demo`: an example from what it reads to answers, on the built-in cluster or one's own."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from demo import run
from demo.app.scenario import APP
from demo.fine_tune.scenario import FINE_TUNE
from demo.from_text import FROM_TEXT
from demo.progress import cause
from demo.results import closing_words
from demo.scenario import Applied
from demo.setting import built_in, own

SCENARIOS = {"fine-tune": FINE_TUNE, "app": APP}  # of the other examples each begins with text
OUTPUT = Path("demo-output")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    made.add_argument("--kubeconfig", type=Path, help="a cluster of your own")
    made.add_argument("--registry", help="a registry that its nodes pull from and this machine pushes to")
    made.add_argument("--storage-class", help="ReadWriteMany; default: the cluster's default class")
    made.add_argument("--example", type=Path, default=run.EXAMPLE, help="an LLMTraining and its LLMServing")
    made.add_argument("--output", type=Path, default=OUTPUT, help="where curves and figures go")
    return made


def main() -> None:
    options = parser().parse_args()
    began = time.monotonic()
    run.say("Cluster and images")
    setting = own(options.kubeconfig, options.registry, options.storage_class) if options.registry else built_in()
    kubectl = setting.kubectl

    run.say("Install the operator")
    run.install(setting.helm, kubectl, setting.images)

    name = options.example.stem
    scenario = SCENARIOS.get(name, FROM_TEXT)
    run.say(scenario.title)
    folders = scenario.gather(options.output)
    run.upload(kubectl, setting.images.trainer, setting.storage_class, folders)

    run.say(f"kubectl apply -f {options.example}")
    kubectl.run("apply", "-f", str(options.example))
    status = run.follow(kubectl, name) if scenario.trains else {}
    if status.get("phase") == "Failed":
        raise SystemExit(f"the training failed: {cause(status)}")
    scenario.show(setting, Applied(name, status, folders, options.output))

    run.say("What kubectl shows")
    print(kubectl.run("get", "llmt,llms,llmapp"))
    print(kubectl.run("get", "pods", "-o", "wide"))
    print(closing_words(setting, name, options.output))
    run.say(f"Done in {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
