"""Rows that data preparation keeps are the very ones that the stage would make, or none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from llm_trainer.data.examples import Examples
from llm_trainer.data.kept_rows import TRAIN, find_rows, key_of, remove_others, table_of
from llm_trainer.data.shared_rows import WORK, RowMaking
from llm_trainer.data.sharing import Sharing
from llm_trainer.data.tokenizer_checks import check_rows
from llm_trainer.runtime.errors import DataError, StaleAttemptError

from .conftest import WriteLines
from .templates import tokenizer_of
from .test_examples import chat, check_of

PAIR = {"prompt": "which?", "chosen": "this", "rejected": "that"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "sft": [chat(f"what is {n}?", "a number " * n) for n in range(1, 40)],
    "dpo": [{**PAIR, "prompt": f"which of {n}?"} for n in range(40)],
    "rewardModel": [{**PAIR, "prompt": f"{n}?", **({"margin": 0.5} if n % 2 else {})} for n in range(40)],
    "kto": [{"prompt": f"{n}?", "completion": "this", "label": n % 3 == 0} for n in range(40)],
    "ppo": [
        {"prompt": f"{n}" + " why?" * n, **({"answer": [n, str(n), {"n": [n]}][n % 3]} if n > 4 else {})}
        for n in range(40)
    ],
}


class Kept:
    """A folder with the rows of one dataset, kept as a preparation does."""

    def __init__(self, root: Path, kind: str, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        self.root, self.folder = root, root / "run/rows"
        self.check, self.tokenizer = check_of(kind, 0.2), tokenizer or tokenizer_of("chatml")

    @property
    def key(self) -> str:
        return key_of(self.check, self.tokenizer, str(self.root))

    def keep(self, may_write: Any = lambda: None) -> Any:
        return check_rows(self.check, self.tokenizer, str(self.root), making=self.making(may_write))

    def making(self, may_write: Any = lambda: None) -> RowMaking:
        sharing = Sharing(self.folder / WORK, "data-1", may_write=may_write)
        return RowMaking(self.check, self.tokenizer, str(self.root), sharing)


@pytest.mark.parametrize("kind", ROWS)
def test_they_are_the_rows_that_the_stage_makes(kind: str, volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", ROWS[kind])
    kept = Kept(volumes, kind)
    notices = kept.keep()
    found = find_rows(kept.folder, kept.key)
    assert found
    assert found.notices == notices
    examples = Examples(kept.check, kept.tokenizer, str(volumes))
    table = table_of(examples)
    chosen = examples.held_out()
    assert 0 < chosen.sum() < len(table)
    assert found.train.equals(table.filter(~chosen))
    assert found.held_out.equals(table.filter(chosen))
    assert found.columns == (["prompt", "answer"] if kind == "ppo" else [])
    assert {path.name for path in kept.folder.iterdir()} == {kept.key, WORK}, "nothing half done is left"
    assert not list((kept.folder / WORK).iterdir())


def test_nothing_held_out(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", ROWS["sft"])
    kept = Kept(volumes, "sft")
    kept.check = check_of("sft", 0.0)
    kept.keep()
    found = find_rows(kept.folder, kept.key)
    assert found
    assert (len(found.train), len(found.held_out)) == (39, 0)


def test_what_decides_the_rows_decides_the_key(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", ROWS["sft"])
    kept = Kept(volumes, "sft")
    first = kept.key
    assert Kept(volumes, "sft").key == first
    kept.check = check_of("sft", 0.2).model_copy(update={"field": "stage 'chat': sft.dataset.uri", "stage": "chat"})
    assert kept.key == first, "how the field is called decides nothing"
    others = [
        check_of("sft", 0.3), check_of("sft", 0.2, maxLength=64), check_of("sft", 0.2, seed=1),
        check_of("sft", 0.2, assistantOnlyLoss=False),
    ]  # fmt: skip
    keys = {key_of(check, kept.tokenizer, str(volumes)) for check in others}
    keys.add(key_of(kept.check, tokenizer_of("mistral"), str(volumes)))
    os.utime(volumes / "corpus/rows.jsonl", ns=(1, 1))
    keys.add(kept.key)
    assert len(keys | {first}) == len(others) + 3


def test_a_tokenizer_that_was_saved_again_is_the_same(volumes: Path, write_lines: WriteLines, tmp_path: Path) -> None:
    write_lines("rows.jsonl", ROWS["sft"])
    kept = Kept(volumes, "sft")
    kept.tokenizer.save_pretrained(tmp_path)
    again = type(kept.tokenizer).from_pretrained(tmp_path)
    again("text", padding="max_length", truncation=True, max_length=8)
    assert key_of(kept.check, again, str(volumes)) == kept.key


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no manifest"])
def test_what_is_not_as_it_was_written_is_none(damage: str, volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", ROWS["sft"])
    kept = Kept(volumes, "sft")
    kept.keep()
    file = kept.folder / kept.key / TRAIN
    content = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "changed":
            file.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
        case "gone":
            file.unlink()
        case _:
            (kept.folder / kept.key / "rows.json").write_text("{")
    assert find_rows(kept.folder, kept.key) is None


def test_a_row_that_is_wrong_keeps_none(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", [*ROWS["sft"], {"messages": "no"}])
    kept = Kept(volumes, "sft")
    with pytest.raises(DataError, match="line 40"):
        kept.keep()
    assert find_rows(kept.folder, kept.key) is None


def test_an_attempt_that_is_no_longer_the_newest_publishes_none(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", ROWS["sft"])
    kept = Kept(volumes, "sft")

    def stale() -> None:
        raise StaleAttemptError("attempt 2 owns this stage")

    with pytest.raises(StaleAttemptError):
        kept.keep(stale)
    assert find_rows(kept.folder, kept.key) is None


def test_others_are_removed(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", ROWS["sft"])
    kept = Kept(volumes, "sft")
    kept.keep()
    (kept.folder / "old").mkdir()
    (kept.folder / ".tmp-0-old").mkdir()
    remove_others(kept.folder, {kept.key})
    assert [path.name for path in kept.folder.iterdir()] == [kept.key]
    remove_others(kept.folder / "not there", set())
