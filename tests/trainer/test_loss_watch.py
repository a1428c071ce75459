"""A loss that goes wrong in a real run: planted bad data, weights that blow up, kills in the middle of a rollback."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.checkpoint.rollbacks import JOURNAL, read_rollbacks
from llm_trainer.config import StageConfig
from llm_trainer.data.sequences import Sequences
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import RunPods, Stage
from tests.trainer.online import PYTHONPATH
from tests.trainer.pods import Pods, evaluations, forget_the_end, history, losses
from tests.trainer.user_functions import row_key

FUNCTIONS = "tests.trainer.user_functions"
STEPS, BATCH = 48, 8
SETTINGS: dict[str, Any] = {
    "steps": STEPS, "globalBatchSize": BATCH, "microBatchSize": 4, "checkpoint": {"everySteps": 5, "keep": 1},
    "evaluation": {"everySteps": 1000}, "lossFunction": f"{FUNCTIONS}:planted",
}  # fmt: skip
WATCH: dict[str, Any] = {"window": 16, "sigma": 4, "spikeSteps": 3, "skips": 3, "rollbacks": 4}
SHUFFLED, NOT_FINITE = range(24, 27), range(27, 38)  # places


@pytest.fixture(scope="module")
def bad_rows(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Which rows of the data are bad: labels shuffled, then NaN."""
    return planted(prepared, tmp_path_factory.mktemp("planted"), SHUFFLED, NOT_FINITE)


def planted(prepared: Path, folder: Path, shuffled: range, not_finite: range) -> Path:
    """A file with the rows of these places."""
    rows = Sequences(prepared / "models" / "run" / "data", 64, 0)

    def keys(places: range) -> list[int]:
        numbers = range(places.start * BATCH, places.stop * BATCH)
        return [row_key(rows.row(number).tokens[:-1].tolist()) for number in numbers]

    file = folder / "rows.json"
    file.write_text(json.dumps({"shuffled": keys(shuffled), "nan": keys(not_finite)}))
    return file


def decisions(pods: Pods, rank: int) -> list[str]:
    """What the watch has decided, as a rank's log has it."""
    words = ("Skip: ", "RollBack: ", "ReduceRate: ", "EarlyStop: ", "Diverged: ")
    return [line for line in pods.pods[rank].log.splitlines() if line.startswith(words)]


def actions(config: StageConfig) -> list[dict[str, Any]]:
    return [row for row in history(config) if "action" in row]


@pytest.fixture(scope="module")
def watched(prepared: Path, bad_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageConfig, Pods]:
    """A run on the bad data, with the watch, that nothing else happens to."""
    from tests.trainer.conftest import MODEL, PRETRAIN, stage_config

    settings = {**PRETRAIN, **SETTINGS, "lossWatch": WATCH}
    config = stage_config(prepared, "watched", model=MODEL, pretrain=settings)
    environment = {"PYTHONPATH": PYTHONPATH, "LLM_TEST_PLANTED": str(bad_rows)}
    running = Pods(config, tmp_path_factory.mktemp("pods"), environment, warm=True)
    progress = running.run()
    assert progress.step == STEPS
    return config, running


def test_bad_data_costs_nothing(
    watched: tuple[StageConfig, Pods], pretrain: Stage, pods: RunPods, bad_rows: Path, record_property: Any
) -> None:
    """The run ends as if the data had been good; without the watch it ends before."""
    config, running = watched
    clean = pretrain("clean", **SETTINGS)
    pods(clean, PYTHONPATH=PYTHONPATH).run()
    unwatched = pretrain("unwatched", **SETTINGS)
    word = pods(unwatched, PYTHONPATH=PYTHONPATH, LLM_TEST_PLANTED=str(bad_rows)).start().wait()[0]
    assert word.exit_code == ExitCode.INTERNAL, word
    assert "10 steps in a row" in word.message
    found, expected = evaluations(config)[STEPS]["loss"], evaluations(clean)[STEPS]["loss"]
    record_property("held-out loss", f"clean {expected:.4f}, watched {found:.4f}")
    assert found == pytest.approx(expected, rel=0.02)
    assert sorted(losses(config)) == list(range(1, STEPS + 1))

    told = [row for row in actions(config) if row["action"] == "RollBack"]
    made = read_rollbacks(Path(config.stage_folder) / "checkpoints")
    assert [row["jumpedOver"] for row in told] == [[each.begin, each.end] for each in made]
    jumped = {place for each in made for place in range(each.begin, each.end)}
    assert jumped >= {*SHUFFLED, *NOT_FINITE}
    assert min(jumped) >= SHUFFLED.start - len(made), "each jumps over one good place, that before the first bad one"
    assert decisions(running, 0) == decisions(running, 1)
    assert len([line for line in decisions(running, 0) if line.startswith("RollBack")]) == len(made)


def test_a_kill_in_the_middle_of_a_rollback(
    watched: tuple[StageConfig, Pods], pretrain: Stage, pods: RunPods, bad_rows: Path
) -> None:
    """Rank 0 dies as soon as the rollback is noted down, before or while anything of it is done."""
    whole, _ = watched
    environment = {"PYTHONPATH": PYTHONPATH, "LLM_TEST_PLANTED": str(bad_rows)}
    first = pods(pretrain("killed-back", lossWatch=WATCH, **SETTINGS), **environment).start()
    journal = Path(first.config.stage_folder) / "checkpoints" / JOURNAL
    while not journal.exists():
        assert first.pods[0].process.is_alive(), first.pods[0].log[-3000:]
        time.sleep(0.001)
    os.kill(first.pods[0].worker(), signal.SIGKILL)
    assert first.wait()[0].reason == "Killed"
    second = pretrain("killed-back", attempt=2, lossWatch=WATCH, **SETTINGS)
    pods(second, **environment).run()
    assert read_rollbacks(journal.parent) == read_rollbacks(Path(whole.stage_folder) / "checkpoints")
    assert losses(second) == pytest.approx(losses(whole), abs=1e-5)
    marks = [(row["action"], row["step"], row["message"]) for row in actions(whole)]
    assert [(row["action"], row["step"], row["message"]) for row in actions(second)] == marks


def test_bad_data_at_the_beginning_and_the_end(prepared: Path, pretrain: Stage, pods: RunPods, tmp_path: Path) -> None:
    """Where there is nothing before it but the start, and where the stage ends before a spike has lasted."""
    first, last = range(3), range(STEPS + 1, STEPS + 3)  # what is jumped over is replaced at the end
    config = pretrain("both-ends", nodes=1, zeroStage=0, lossWatch=WATCH, **SETTINGS)
    progress = pods(config, PYTHONPATH=PYTHONPATH, LLM_TEST_PLANTED=str(planted(prepared, tmp_path, last, first))).run()
    assert progress.step == STEPS
    assert progress.result
    made = read_rollbacks(Path(config.stage_folder) / "checkpoints")
    assert [(each.step, each.to, each.begin, each.end) for each in made] == [(3, 0, 0, 3), (STEPS, 45, 48, 51)]
    assert "2 steps in a row, up to step 48, are off" in made[1].message
    assert sorted(losses(config)) == list(range(1, STEPS + 1))
    assert max(loss for step, loss in losses(config).items() if step > 40) < losses(config)[1]


def test_a_stage_that_has_diverged(pretrain: Stage, pods: RunPods, bad_rows: Path) -> None:
    """It ends with the data that is suspect, and what it has saved is of before, whatever is kept. With more rollbacks
    it goes on from there.
    """
    environment = {"PYTHONPATH": PYTHONPATH, "LLM_TEST_PLANTED": str(bad_rows)}
    settings = {**SETTINGS, "checkpoint": {"everySteps": 1, "keep": 1}, "zeroStage": 0}
    config = pretrain("diverged-by-its-watch", nodes=1, **settings, lossWatch={**WATCH, "rollbacks": 0})
    word = pods(config, **environment).start().wait()[0]
    assert (word.exit_code, word.reason) == (ExitCode.DIVERGED, "Diverged"), word
    assert "0 rollbacks did not help" in word.message
    assert "train/odd-00000.bin " in word.message, "the documents are named"
    assert actions(config)[-1]["action"] == "Diverged"
    assert not (Path(config.stage_folder) / "results").exists()
    again = pretrain("diverged-by-its-watch", nodes=1, attempt=2, **settings, lossWatch=WATCH)
    assert pods(again, **environment).run().step == STEPS
    first = read_rollbacks(Path(config.stage_folder) / "checkpoints")[0]
    row = next(row for row in actions(again) if row["action"] == "RollBack")
    assert row["step"] <= first.to < SHUFFLED.start, "it went on from a checkpoint of the spike"


def test_an_early_stop_and_a_lower_rate(pretrain: Stage, pods: RunPods) -> None:
    """A stage whose held-out loss gets no better ends as succeeded, with its result; killed before that, too."""
    watch = {"earlyStop": {"patience": 4, "minDelta": 100}, "reduceOnPlateau": {"patience": 1}}
    changed = {"schedule": {"type": "constant"}, "evaluation": {"everySteps": 2}, "lossWatch": watch}
    config = pretrain("early", nodes=1, optimizer={"learningRate": 0.3}, steps=400, **changed)
    progress = pods(config).run()
    reasons = [notice.reason for notice in progress.notices]
    assert reasons.count("EarlyStop") == 1, progress.notices
    assert progress.step == 8
    assert progress.result
    assert progress.result.step == 8
    rates = {row["step"]: row["learningRate"] for row in history(config) if "learningRate" in row}
    assert rates[8] == pytest.approx(rates[1] * 0.5 ** reasons.count("ReduceRate"))
    assert [row["step"] for row in actions(config) if row["action"] == "EarlyStop"] == [8]


def test_a_learning_rate_by_trials(pretrain: Stage, pods: RunPods) -> None:
    """The run is that in which the same rate was written: the trials leave nothing behind. A resume tries no more."""
    tune = {"learningRate": {"minimum": 1e-4, "maximum": 1, "steps": 16}}
    short = {"steps": 8, "checkpoint": {"everySteps": 4}}
    tuned = pretrain("tuned", **short, tune=tune, optimizer={"learningRate": 7.0})
    progress = pods(tuned).run()
    (notice,) = [notice.message for notice in progress.notices if notice.reason == "Tuned"]
    (row,) = [row for row in history(tuned) if "tune" in row]
    assert row["message"] == notice
    assert len(row["tune"]["rates"]) == len(row["tune"]["losses"]) > 4
    rate = max(row["learningRate"] for row in history(tuned) if "learningRate" in row)
    written = pretrain("rate-written", **short, optimizer={"learningRate": rate})
    pods(written).run()
    assert losses(tuned) == pytest.approx(losses(written), abs=1e-5)
    forget_the_end(tuned, 8)
    again = pretrain("tuned", attempt=2, **short, tune=tune, optimizer={"learningRate": 7.0})
    progress = pods(again).run()
    assert "Tuned" not in [notice.reason for notice in progress.notices]
    assert losses(again) == pytest.approx(losses(written), abs=1e-5)
