"""vLLM in the trainer image gives the log-probabilities of transformers, for a tiny model of each served family,
on the node's CPU and on one without AVX-512.

One pod loads the models in turn: they are many, and each start of a pod costs.
"""

from __future__ import annotations

import json
import pydoc_data.topics
import shutil
from typing import Any

import pytest

from llm_operator.api.serving import LLMServingSpec
from llm_operator.serving.manifests import arguments, environment
from llm_trainer.data.tokenizer import train_tokenizer
from tests.e2e import served_families
from tests.e2e.family_models import MODELS, write_model
from tests.e2e.pods import restricted_pod
from tests.e2e.served_families import AS_IT_IS, WITHOUT_AVX512
from tests.e2e.user import Manifest, Seen, User

SECONDS = 1800


def pod(image: str) -> Manifest:
    """Named families, under the restricted standard, with the environment and arguments of a served model."""
    spec = LLMServingSpec.model_validate(
        {"model": {"uri": "pvc://models/families"}, "maxModelLength": 128, "extraArguments": ["--max-num-seqs=4"]}
    )
    program = ["python", "/volumes/models/served_families.py", "/volumes/models/families"]
    # In one process vLLM need not be imported again for each model.
    variables = {**environment(spec), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    command = [*program, *arguments({"metadata": {"name": "families"}}, spec, ())]
    return restricted_pod("families", image, command, claims=["models"], variables=variables)


@pytest.fixture(scope="module")
def told(user: User, images: dict[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    """What the pod said of each family on each CPU: its `difference` or its `error`."""
    tokenizer = train_tokenizer(iter(pydoc_data.topics.topics.values()), 512)
    folder = user.folder("models")
    for family in MODELS:
        write_model(folder / "families" / family, family, tokenizer)
    shutil.copy(served_families.__file__, folder / "served_families.py")
    user.kubectl.apply(pod(images["llm-trainer"]))
    user.until("has ended", "pod", "families", lambda status: status["phase"] in ("Succeeded", "Failed"), SECONDS)
    log = user.kubectl.run("logs", "families")
    said = [json.loads(line) for line in log.splitlines() if line.startswith('{"family"')]
    return {(one["family"], one["cpu"]): one for one in said}


@pytest.mark.release
@pytest.mark.parametrize("cpu", [AS_IT_IS, WITHOUT_AVX512])
@pytest.mark.parametrize("family", MODELS)
def test_vllm_says_what_transformers_says(
    family: str, cpu: str, told: dict[tuple[str, str], dict[str, Any]], record_property: Seen
) -> None:
    assert (family, cpu) in told, f"the pod ended before it came to it: {told}"
    difference = told[family, cpu].get("difference", 1.0)
    record_property("largest difference", f"{difference:.1e} nats")
    assert difference < 1e-3, told[family, cpu]
