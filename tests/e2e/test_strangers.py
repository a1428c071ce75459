"""A pod of the same namespace that races rank 1 to rank 0, and a stage's pod that reaches for what isn't its own."""

from __future__ import annotations

import pytest

from llm_operator.training.names import child_name, run_name
from llm_trainer.protocol import RENDEZVOUS_PORT
from tests.e2e.pods import restricted_pod
from tests.e2e.specs import TRAINING
from tests.e2e.user import User, stage, step
from tests.specs import changed

STEPS = 300
# It has imported all and knocks five times a second, as nothing of the training does before its rank 0 is up.
STRANGER = """
import datetime, pathlib, time
import torch.distributed as dist
print("ready", flush=True)
target = pathlib.Path("/volumes/corpus/target")
while not target.exists():
    time.sleep(0.1)
place = target.read_text()
while True:
    try:
        dist.init_process_group(
            "gloo", init_method=place, rank=1, world_size=2, timeout=datetime.timedelta(seconds=10)
        )
        print("JOINED", flush=True)
        break
    except Exception as error:
        print("kept out:", str(error).splitlines()[0][:200], flush=True)
    time.sleep(0.2)
"""
REACH = """
import pathlib, sys
for path in sys.argv[1:]:
    try:
        pathlib.Path(path).write_text("mine")
        print("written")
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture(scope="module")
def uid(user: User, images: dict[str, str]) -> str:
    """Of the training `raced`, at whose rank 0 the stranger has been knocking since before it was there."""
    user.kubectl.apply(restricted_pod("stranger", images["llm-trainer"], ["python", "-c", STRANGER], claims=["corpus"]))
    user.until("is ready", "pod", "stranger", lambda _: "ready" in user.kubectl.run("logs", "stranger", check=False))
    (user.folder("models") / "of-another").mkdir()
    one_stage = changed(TRAINING, stages__0__pretrain__steps=STEPS)
    user.apply("LLMTraining", "raced", {**one_stage, "stages": one_stage["stages"][:1]})
    uid = user.kubectl.run("get", "llmtraining", "raced", "-o", "jsonpath={.metadata.uid}")
    name = child_name("raced", uid, "base", 1)
    (user.folder("corpus") / "target").write_text(f"tcp://{name}-0.{name}:{RENDEZVOUS_PORT}")
    return uid


def test_a_stage_can_write_to_the_run_folder_alone(user: User, uid: str) -> None:
    status = user.until("base runs", "llmtraining", "raced", lambda s: step(s, "base") >= 1)
    for worker in stage(status, "base")["workers"]:
        folders = ("", "of-another/", f"{run_name('raced', uid)}/")
        paths = [f"/volumes/models/{folder}written-by-{worker['rank']}" for folder in folders]
        said = user.kubectl.run("exec", worker["pod"], "--", "python", "-c", REACH, *paths).splitlines()
        assert said == ["Read-only file system", "Read-only file system", "written"]


def test_a_stranger_that_races_rank_1_is_refused(user: User, uid: str) -> None:
    del uid
    status = user.until("ends", "llmtraining", "raced", lambda s: s["phase"] in ("Succeeded", "Failed"))
    assert status["phase"] == "Succeeded", status
    (attempt,) = stage(status, "base")["attempts"]
    told = user.kubectl.run("logs", "stranger")
    assert "kept out" in told, f"the stranger has found nobody to knock at: {told}"
    assert "JOINED" not in told
    log = user.kubectl.run("logs", f"job/{attempt['job']}", "--all-pods", "--tail=-1")
    assert "was refused: it did not show the token of this attempt" in log, log
