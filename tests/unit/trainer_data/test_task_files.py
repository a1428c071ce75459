"""Task files of users: what is wrong is named, and nothing of them runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trainer.config import EvaluationTask
from llm_trainer.data.task_files import read_task
from llm_trainer.runtime.errors import DataError
from tests.trainer.task_files import write_tasks

TASK = EvaluationTask(name="mine", uri="pvc://corpus/tasks/letters.yaml", num_fewshot=2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_tasks(tmp_path / "corpus" / "tasks")
    return tmp_path / "corpus" / "tasks" / "letters.yaml"


def read(file: Path) -> dict[str, object]:
    return read_task(TASK, "spec.x", str(file.parents[2]))


def test_it_is_read_as_lm_eval_takes_it(file: Path) -> None:
    made = read(file)
    assert (made["task"], made["num_fewshot"], made["output_type"]) == ("mine", 2, "multiple_choice")
    data = str(file.parent / "letters")
    assert made["dataset_kwargs"] == {"data_files": {"test": [f"{data}/test.jsonl"], "shown": [f"{data}/shown.jsonl"]}}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("doc_to_target: answer", "doc_to_target: !function mine.target", "may call no Python, such as by !function"),
        ("doc_to_target: answer", "doc_to_target: !!python/name:os.system", "may call no Python"),
        ("task: letters", "task: [", "is no valid YAML"),
        ("task: letters", "task: " + "[" * 5000, "is no valid YAML"),
        ("task: letters", "include: other.yaml", "include can't be used: it names Python, another file or a hub"),
        ("task: letters", "process_docs: x", "process_docs can't be used"),
        ("task: letters", "class: x", "class can't be used"),
        ("task: letters", "unsafe_code: true", "unsafe_code can't be used"),
        ("task: letters", "custom_dataset: x", "custom_dataset can't be used"),
        ("dataset_path: json", "dataset_path: cais/mmlu", "dataset_path 'cais/mmlu' must be one of json"),
        (
            "letters/test.jsonl",
            "letters/tset.jsonl",
            "letters/tset.jsonl is no file at pvc://corpus/tasks/letters/tset",
        ),
        ("letters/test.jsonl", "../../../etc/passwd", "leads out of the claims"),
        ("letters/test.jsonl", "/etc/passwd", "leads out of the claims"),
        ("letters/test.jsonl", "https://example.com/x", "is no file"),
        ("  data_files:", "  data_dir:", "data_files is missing"),
        (
            "  data_files:",
            "  trust_remote_code: true\\n  data_files:",
            "dataset_kwargs.trust_remote_code can't be used",
        ),
        (
            "fewshot_split: shown",
            "fewshot_split: test",
            "with 2 examples (num_fewshot) it shows rows of the split",
        ),
        ("metric: acc,", "metric: acc, hf_evaluate: true,", "hf_evaluate of acc fetches code from a hub"),
        ("metric_list:", "metric_list: acc\\nmetadata:", "metric_list must be a list of mappings"),
    ],
)
def test_what_is_wrong_is_named(file: Path, old: str, new: str, says: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new.replace("\\n", "\n"), 1))
    with pytest.raises(DataError) as told:
        read(file)
    assert str(told.value).startswith("spec.x: pvc://corpus/tasks/letters.yaml")
    assert says in str(told.value)


@pytest.mark.parametrize("text", [b"", b"[1]", b"1: 2", b"\xff\xfe\x00", b"# only"])
def test_what_is_no_task_is_told(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    with pytest.raises(DataError, match=r"spec\.x: pvc://corpus/tasks/letters\.yaml"):
        read(file)


def test_links_that_lead_out_are_not_followed(file: Path) -> None:
    outside = file.parents[2] / "other" / "secret.jsonl"
    outside.parent.mkdir()
    outside.write_text("{}")
    data = file.parent / "letters" / "test.jsonl"
    data.unlink()
    data.symlink_to(outside)
    with pytest.raises(DataError, match="leads out of the claim corpus"):
        read(file)
    file.unlink()
    with pytest.raises(DataError, match="is no file; name a YAML file of a task"):
        read(file)
