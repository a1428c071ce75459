"""Any number of processes, and attempts that die at any moment, make the same rows of a dataset."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_trainer.config import DatasetCheck
from llm_trainer.data import rows, shared_rows
from llm_trainer.data.examples import Examples, Tally
from llm_trainer.data.kept_rows import find_rows, table_of, write_batches
from llm_trainer.data.shared_rows import WORK, RowMaking, read_tally, write_tally
from llm_trainer.data.sharing import Piece, Sharing
from llm_trainer.runtime.errors import DataError

from .conftest import WriteLines
from .templates import tokenizer_of
from .test_examples import chat, check_of
from .test_kept_rows import ROWS
from .together import END_SECONDS, _forks

SMALL = 700  # bytes of a share


def check_for(kind: str) -> DatasetCheck:
    length = {"maxPromptLength": 16} if kind == "ppo" else {"maxLength": 48}
    return check_of(kind, 0.2, **length).model_copy(update={"uri": "pvc://corpus/*"})


def attempt(volumes: Path, kind: str, processes: int, *, run: str, number: int = 1, dies: bool = False) -> list[int]:
    """How many shares each process has made."""
    log = volumes / "made" / f"{run}-{number}"
    log.mkdir(parents=True)
    folder = volumes / "models" / run
    started = [
        _forks.Process(target=work, args=(kind, volumes, folder, number, rank, processes, log, dies))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    if dies:
        started[-1].join(END_SECONDS)
    for process in started:
        if dies:
            process.kill()
        process.join(END_SECONDS)
        assert dies or process.exitcode == 0, f"a process ended with {process.exitcode}"
    assert not dies or started[-1].exitcode == -signal.SIGKILL
    return [len(entry.read_text().splitlines()) for entry in log.iterdir()]


def work(
    kind: str, volumes: Path, folder: Path, number: int, rank: int, processes: int, log: Path, dies: bool
) -> None:  # fmt: skip
    rows.SHARE_BYTES = SMALL
    make = Sharing._make

    def made(self: Sharing, folder: Path, piece: Piece) -> None:
        make(self, folder, piece)
        with (log / str(rank)).open("a") as stream:
            stream.write(f"{piece.key}\n")
        while len(list(log.iterdir())) < processes or (dies and rank < processes - 1):
            time.sleep(0.01)  # until each has made one; or the end, which comes when the last is at its second

    def half(file: Path, batches: Any) -> None:
        """Of the second that it makes."""
        if not (log / str(rank)).exists():
            write_batches(file, batches)
            return
        file.write_bytes(b"ARROW1")
        os.kill(os.getpid(), signal.SIGKILL)

    Sharing._make = made  # type: ignore[method-assign]
    if dies and rank == processes - 1:
        setattr(shared_rows, "write_batches", half)  # noqa: B010 -- it is another module's
    making = RowMaking(
        check_for(kind), tokenizer_of("chatml"), str(volumes),
        Sharing(folder / WORK, f"data-{number}", str(rank), first=rank == 0),
    )  # fmt: skip
    making.find_or_make()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_any_number_of_processes_and_any_death_make_the_same_bytes(volumes: Path, write_lines: WriteLines) -> None:
    """Of ranges of lines with blank ones between, row groups, and small files."""
    kind, given = "dpo", ROWS["dpo"]
    write_lines("a.jsonl", [line for row in given for line in (row, "")])
    pq.write_table(pa.Table.from_pylist(given), volumes / "corpus/b.parquet", row_group_size=5)
    for number, row in enumerate(given[:4]):
        write_lines(f"c{number}.jsonl", [row])
    for processes in (1, 2, 4):
        made = attempt(volumes, kind, processes, run=f"run-{processes}")
        assert len(made) == processes, f"each has made something: {made}"
        assert sum(made) > 6
    wanted = files_of(volumes / "models/run-1")
    assert len(wanted) == 3
    assert files_of(volumes / "models/run-2") == files_of(volumes / "models/run-4") == wanted
    for number, processes in ((1, 1), (2, 3)):
        attempt(volumes, kind, processes, run="run", number=number, dies=True)
    assert not list((volumes / "models/run").glob("[!.]*"))
    last = attempt(volumes, kind, 2, run="run", number=3)
    assert files_of(volumes / "models/run") == wanted
    assert sum(last) < sum(made), "what was made before is not made again"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SHARE_BYTES", SMALL)


def making_of(volumes: Path, check: DatasetCheck) -> RowMaking:
    sharing = Sharing(volumes / "models/run/rows" / WORK, "data-1")
    return RowMaking(check, tokenizer_of("chatml"), str(volumes), sharing)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ROWS)
def test_shares_say_what_the_whole_says(kind: str, volumes: Path, write_lines: WriteLines) -> None:
    """The same rows, held-out ones and notices as of one who reads all."""
    given = [{**row, "other": 1} for row in ROWS[kind]]
    write_lines("a.jsonl", given)
    check = check_for(kind)
    whole = Examples(check, tokenizer_of("chatml"), str(volumes))
    table = table_of(whole)
    making = making_of(volumes, check)
    examples = making.make()
    assert examples.tally == whole.tally
    assert examples.notices() == whole.notices() != []
    assert making.commit(examples)
    found = find_rows(making.folder.parent, making.key)
    assert found
    assert found.train.equals(table.filter(~whole.held_out()))


def test_a_tally_is_read_as_it_was_written(tmp_path: Path) -> None:
    tally = Tally(rows=3, too_long=1, labels={True: 2}, unread={"a"}, keys={"b"}, columns={"z": None, "a": None})
    tally.row_numbers.extend([1, 2**64 - 1])
    tally.prompt_numbers.extend([3, 4])
    write_tally(tmp_path, tally)
    assert read_tally(tmp_path) == tally


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"messages": [{"role": "assistant", "content": ""}]}, "line 40: messages"),
        ("no JSON", "line 40 is not JSON"),
        ({"prompt": "a", "completion": "b"}, "line 40 needs the columns messages"),
        ({"messages": [{"role": "wizard", "content": "x"}, {"role": "assistant", "content": "y"}]}, "line 40"),
    ],
)
def test_a_line_is_counted_in_the_whole_file(bad: Any, said: str, volumes: Path, write_lines: WriteLines) -> None:
    """Also by who reads a part of it alone."""
    write_lines("rows.jsonl", [*ROWS["sft"], bad])
    with pytest.raises(DataError, match=rf"pvc://corpus/rows.jsonl, {said}"):
        making_of(volumes, check_of("sft")).make()


@pytest.mark.usefixtures("small")
def test_prompts_of_two_forms_in_two_shares(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", [*ROWS["ppo"], {"prompt": [{"role": "user", "content": "x"}]}])
    with pytest.raises(DataError, match=r"rows.jsonl, line 41: prompt is a list, and before a str"):
        making_of(volumes, check_of("ppo")).make()


@pytest.mark.usefixtures("small")
def test_no_row_is_left(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", [chat("what is it? " * 60, "x") for _ in range(9)])
    with pytest.raises(DataError, match=r"no row of pvc://corpus/rows.jsonl is left: .* in all 9"):
        making_of(volumes, check_of("sft", maxLength=16)).make()
    write_lines("rows.jsonl", ["", ""])
    with pytest.raises(DataError, match="has no rows"):
        making_of(volumes, check_of("sft")).make()


def test_a_file_that_changes_meanwhile_is_not_kept(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("rows.jsonl", ROWS["sft"])
    making = making_of(volumes, check_of("sft"))
    examples = making.make()
    os.utime(volumes / "corpus/rows.jsonl", ns=(1, 1))
    assert not making.commit(examples)
    assert not making.folder.exists()
    with pytest.raises(DataError, match="changed while it was read"):
        making.find_or_make()
