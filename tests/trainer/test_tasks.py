"""lm-eval's tasks on the model as it is, before it is published."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import TaskCheck, local_path
from llm_trainer.protocol import Score
from llm_trainer.stages.tasks import check_task, scores_of
from tests.trainer.conftest import RunPods, Stage
from tests.trainer.pods import history
from tests.trainer.task_files import write_tasks

TASKS = [
    {"name": "letters", "uri": "pvc://corpus/tasks/letters.yaml", "numFewshot": 2},
    {"name": "written", "uri": "pvc://corpus/tasks/written.yaml", "limit": 5},
]


def own_command(folder: str, tasks: Path) -> list[Score]:
    """What lm-eval says of a result's folder by itself: its own model, task files as they are written."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    made = []
    before = Path.cwd()
    os.chdir(tasks)  # by which it finds data_files
    try:
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        for name, more in (("letters", {"num_fewshot": 2}), ("written", {"limit": 5})):
            results = simple_evaluate(
                model="hf", model_args={"pretrained": folder, "dtype": "float32"}, tasks=[name], device="cpu",
                batch_size=1, task_manager=manager, log_samples=False, **more,
            )  # fmt: skip
            made += scores_of(name, results)
    finally:
        os.chdir(before)
    return made


def test_scores_are_those_of_lm_evals_own_command(pretrain: Stage, prepared: Path, pods: RunPods) -> None:
    """On the folder of the result, whose weights and tokenizer it reads anew; two processes that share the
    questions, of which one has one more, tell one score.
    """
    write_tasks(tasks := prepared / "corpus" / "tasks")
    evaluation: dict[str, Any] = {"tasks": TASKS, "gate": "warn",
                                  "thresholds": [{"metric": "written/exact_match,first", "min": 0.99}]}  # fmt: skip
    progress = pods(config := pretrain("scored", steps=10, evaluation=evaluation)).run()
    assert progress.result
    assert {score.name: (score.samples, score.few_shot) for score in progress.scores} == {
        "letters/acc": (20, 2), "letters/acc_norm": (20, 2), "written/exact_match,first": (5, 0),
    }  # fmt: skip
    folder = local_path(progress.result.uri, config.volumes_root)
    assert [score.model_dump() for score in own_command(folder, tasks)] == [
        pytest.approx(score.model_dump(), abs=1e-9) for score in progress.scores
    ]
    assert all(score.stderr is not None for score in progress.scores)
    (row,) = [row["scores"] for row in history(config) if "scores" in row]
    assert [Score.model_validate(one) for one in row] == progress.scores
    assert "letters/acc" in (Path(folder) / "README.md").read_text()
    (notice,) = [notice for notice in progress.notices if notice.reason == "ThresholdMissed"]
    assert "written/exact_match,first is" in notice.message


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        (["acc"], ""),
        (["acc_norm", "f1"], "gives no f1, which evaluation.thresholds name; its metrics are letters/acc"),
    ],
)
def test_data_preparation_reads_a_task_as_its_stage_will(tmp_path: Path, metrics: list[str], says: str) -> None:
    write_tasks(tmp_path / "corpus")
    check = TaskCheck(name="letters", uri="pvc://corpus/letters.yaml", field="spec.x", metrics=metrics, num_fewshot=2)
    if not says:
        assert check_task(check, str(tmp_path)) == "task letters of 20 questions"
        return
    with pytest.raises(Exception, match=says):
        check_task(check, str(tmp_path))


REACHES_OUT = "{{ question.__class__.__mro__[1].__subclasses__() }}"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{{question}} Answer:", REACHES_OUT, "unsafe"),
        ("{{question}} Answer:", "{{nothing}}", "nothing"),
        (
            "{{question}} Answer:",
            "{% if 'worde' in question %}{{later}}{% endif %}",
            "'later' is undefined",
        ),
        ("metric: acc,", "metric: glue,", "lm-eval has no metric 'glue'; use one of"),
        ("output_type: multiple_choice", "output_type: guess", "guess"),
        ("test_split: test", "test_split: tset", "tset"),
    ],
)
def test_a_task_that_can_not_run_is_told_before(tmp_path: Path, old: str, new: str, says: str) -> None:
    write_tasks(tmp_path / "corpus")
    file = tmp_path / "corpus" / "letters.yaml"
    file.write_text(file.read_text().replace(old, new))
    check = TaskCheck(name="letters", uri="pvc://corpus/letters.yaml", field="spec.x", num_fewshot=0)
    with pytest.raises(Exception, match=says) as told:
        check_task(check, str(tmp_path))
    assert str(told.value).startswith("spec.x: ")
    assert "letters.yaml" in str(told.value)
