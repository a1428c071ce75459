"""A warm-up that a dataset's rows don't outlast is told in data preparation, before its stage takes a GPU."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from llm_trainer.config import DatasetCheck, Dpo, Grpo, Sft
from llm_trainer.runtime.errors import DataError
from llm_trainer.stages.prepare_checks import check_dataset

ROWS = 20


def check(volumes: Path, kind: type[Sft | Dpo | Grpo], epochs: float, warmup: int, **settings: object) -> int:
    (volumes / "corpus").mkdir(exist_ok=True)
    row: dict[str, object] = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}
    row |= {"prompt": "?", "chosen": "!", "rejected": "."}
    (volumes / "corpus" / "rows.jsonl").write_text((json.dumps(row) + "\n") * ROWS)
    given = {
        "dataset": {"uri": "pvc://corpus/rows.jsonl"}, "epochs": epochs, "schedule": {"warmupSteps": warmup}, **settings
    }  # fmt: skip
    return check_dataset(DatasetCheck.of(kind.model_validate(given), "spec.stages[1].sft"), str(volumes))


@pytest.mark.parametrize("epochs", [0.5, 1, 2.5, 7])
@pytest.mark.parametrize("batch", [1, 8, 20, 64])
def test_it_is_refused_exactly_where_no_step_is_left(epochs: float, batch: int, tmp_path: Path) -> None:
    """With nothing held out, as far as the rows alone tell."""
    steps = math.ceil(epochs * math.ceil(ROWS / batch))
    assert check(tmp_path, Sft, epochs, steps - 1, globalBatchSize=batch) == ROWS
    with pytest.raises(DataError, match=r"spec\.stages\[1\]\.schedule\.warmupSteps: .* has 20 rows.*lower it"):
        check(tmp_path, Sft, epochs, steps, globalBatchSize=batch)


def test_of_a_stage_that_writes_answers_the_prompts_count(tmp_path: Path) -> None:
    rewards = [{"function": "module:reward"}]
    assert check(tmp_path, Grpo, 1, 19, globalBatchSize=8, numGenerations=8, rewards=rewards) == ROWS
    with pytest.raises(DataError, match="warmupSteps"):
        check(tmp_path, Grpo, 1, 20, globalBatchSize=8, numGenerations=8, rewards=rewards)
