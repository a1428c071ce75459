"""The layer of experiment trackers: the image that has it tells all three, as a pod does. No cluster is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import images, steps
from tests.cluster.settings import LOGS
from tests.monitoring.test_trackers import losses, mlflow_server, the_run
from tests.monitoring.trackers import READ_EVENTS, READ_WANDB, configured, libraries, read

__all__ = ["libraries", "mlflow_server"]

pytestmark = pytest.mark.release  # builds an image

ROOT = "/volumes"
TELL = """
import json, sys
from pathlib import Path
from llm_trainer.config import StageConfig
from llm_trainer.runtime.history import HISTORY, History
from llm_trainer.runtime.progress import Board
from llm_trainer.tracking.start import Trackers

config = StageConfig.model_validate_json(sys.argv[1])
Path(config.stage_folder).mkdir(parents=True)
board = Board(config.stage, config.attempt)
trackers = Trackers(config, board)
history = History(Path(config.stage_folder) / HISTORY, config.attempt)
for step in range(1, 6):
    history.append(step, loss=1 / step)
trackers.end(300)
print(json.dumps([notice.message for notice in board.progress.notices]))
"""


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """Of the image with the layer; its layers below are those of the other tests' image."""
    steps.run(images.missing(), LOGS)
    name, build = images.build_with_trackers()
    if not images.exists(name):
        steps.run([build], LOGS)
    made = images.buildah("from", name).stdout.strip()
    yield made
    images.buildah("rm", made)


def test_each_tracker_is_told_by_the_image(container: str, libraries: Path, mlflow_server: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "models").mkdir(mode=0o777)
    (tmp_path / "models").chmod(0o777)  # the image's user is none of this machine
    config = configured(ROOT, {"tensorboard": {}}, {"mlflow": {"uri": mlflow_server}}, {"wandb": {"project": "chat"}})
    told = images.buildah("run", "-v", f"{tmp_path}/models:{ROOT}/models", container, "--", "python", "-c", TELL,
                          config.model_dump_json(by_alias=True), check=False)  # fmt: skip
    assert told.returncode == 0, told.stderr[-3000:]
    assert json.loads(told.stdout.splitlines()[-1]) == [], "no tracker has complained"
    run = tmp_path / "models" / "run"
    events = read(libraries, READ_EVENTS, run / "tensorboard" / "base")
    assert [step for step, _ in events["loss"]] == [1, 2, 3, 4, 5]
    (file,) = (run / "wandb").glob("**/*.wandb")
    assert [row["step"] for row in read(libraries, READ_WANDB, file)] == [1, 2, 3, 4, 5]
    assert losses(mlflow_server, the_run(mlflow_server)) == pytest.approx({n: 1 / n for n in range(1, 6)})


def test_its_bill_names_them(container: str) -> None:
    bill = json.loads(images.buildah("run", container, "--", "cat", images.BILL).stdout)
    assert {"mlflow-skinny", "tensorboard", "wandb"} <= {one["name"] for one in bill["components"]}
