"""The tokens of right rows are those that TRL's trainers make of them, so that the losses are theirs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from trl import DPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer

from llm_trainer.config import DatasetCheck, Dpo, FineTuning, Kto, RewardModel, Sft
from llm_trainer.data.chat_template import CHAT_TEMPLATE
from llm_trainer.data.examples import Examples
from llm_trainer.data.kept_rows import table_of
from llm_trainer.stages.fine_tuning import with_mismatches
from tests.unit.trainer_data.conftest import volumes, write_lines  # noqa: F401 -- fixtures
from tests.unit.trainer_data.templates import FAMILIES, tokenizer_of, tokenizer_with

LENGTH, SIZE = 40, 2
KINDS: dict[str, tuple[type[FineTuning], Any]] = {
    "sft": (Sft, SFTTrainer),
    "rewardModel": (RewardModel, RewardTrainer),
    "dpo": (Dpo, DPOTrainer),
    "kto": (Kto, KTOTrainer),
}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def rows_for(kind: str, *, turns: bool) -> list[dict[str, Any]]:
    """Some are too long, some are cut."""
    rows = []
    for number, words in enumerate((1, 3, 9, 30, 2, 5, 12)):
        ask, good, bad = f"what is {number}?" + " one two" * (words // 2), " three" * words, " four" * (words + 2)
        if turns:
            question = [turn("user", ask)]
            chosen, rejected = [turn("assistant", good.strip())], [turn("assistant", bad.strip())]
            chat = [*question, *chosen, turn("user", "more"), turn("assistant", "of it")]
            row: dict[str, Any] = {
                "prompt": question,
                "completion": chosen,
                "chosen": chosen,
                "rejected": rejected,
                "messages": chat,
            }
        else:
            row = {"prompt": ask, "completion": good, "chosen": good, "rejected": bad}
        needed = {"sft": ["prompt", "completion"], "kto": ["prompt", "completion"]}.get(
            kind, ["prompt", "chosen", "rejected"]
        )
        made = {column: row[column] for column in needed}
        rows.append({**made, "label": number % 3 == 0} if kind == "kto" else made)
    return rows


def by_trl(
    kind: str, rows: list[dict[str, Any]], tokenizer: Any, *, assistant_only: bool = False
) -> list[dict[str, Any]]:
    trainer = KINDS[kind][1]
    arguments = SimpleNamespace(
        max_length=LENGTH, truncation_mode="keep_start", dataset_num_proc=None, dataset_text_field="text",
        assistant_only_loss=assistant_only, shuffle_dataset=False, per_device_train_batch_size=SIZE,
    )  # fmt: skip
    self = SimpleNamespace(
        _tokenizer=tokenizer, chat_template=None, calculate_KL=True, desirable_weight=1.0, undesirable_weight=1.0,
        completion_only_loss="prompt" in rows[0],
    )  # fmt: skip
    packing = (False, None) if kind == "sft" else ()
    made = trainer._prepare_dataset(self, datasets.Dataset.from_list(rows), tokenizer, arguments, *packing, "eval")
    return list(made)


def by_us(kind: str, rows: list[dict[str, Any]], tokenizer: Any, root: Path, **changes: Any) -> list[dict[str, Any]]:
    dataset = {"uri": "pvc://corpus/rows.jsonl", "validationFraction": 0.0}
    settings = KINDS[kind][0].model_validate({"dataset": dataset, "maxLength": LENGTH, **changes})
    table = table_of(Examples(DatasetCheck.of(settings, f"spec.stages[0].{kind}"), tokenizer, str(root)))
    return list((with_mismatches(table, SIZE) if kind == "kto" else table).to_pylist())


def assert_same(ours: list[dict[str, Any]], trl: list[dict[str, Any]]) -> None:
    assert ours
    assert ours == [{name: row[name] for name in ours[0]} for row in trl]


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens(volumes: Path, write_lines: Any, kind: str, turns: bool) -> None:  # noqa: F811
    rows = rows_for(kind, turns=turns)
    write_lines("rows.jsonl", rows)
    for tokenizer in (tokenizer_with(CHAT_TEMPLATE), tokenizer_of("chatml")):
        changes = {"assistantOnlyLoss": False} if kind == "sft" else {}
        assert_same(by_us(kind, rows, tokenizer, volumes, **changes), by_trl(kind, rows, tokenizer))


@pytest.mark.parametrize("family", ["ours", *FAMILIES])
def test_what_the_assistant_says(volumes: Path, write_lines: Any, family: str) -> None:  # noqa: F811
    rows = [{"messages": [*row["prompt"], *row["completion"]]} for row in rows_for("sft", turns=True)]
    write_lines("rows.jsonl", rows)
    tokenizer = tokenizer_with(CHAT_TEMPLATE) if family == "ours" else tokenizer_of(family, marked=True)
    assert_same(by_us("sft", rows, tokenizer, volumes), by_trl("sft", rows, tokenizer, assistant_only=True))
