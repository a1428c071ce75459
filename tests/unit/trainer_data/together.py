"""Real processes that prepare a corpus together, as those of several pods do; one of them may be killed at a moment."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from llm_trainer.config import PrepareData

SMALL_UNIT, SMALL_RUN = 4000, 16  # bytes; documents
END_SECONDS = 240
PUBLISH = "Publish"

_forks = multiprocessing.get_context("forkserver")  # of a parent that has used no tokenizer, as a launcher's is
_forks.set_forkserver_preload(["llm_trainer.data.prepare"])


@dataclass(frozen=True)
class Death:
    """Of the process that makes the first piece of a phase: before the piece is there, or after it."""

    phase: str
    after: bool = False


def together(
    config: PrepareData,
    volumes: Path,
    *,
    processes: int,
    attempt: int = 1,
    run: str = "run",
    death: Death | None = None,
) -> dict[str, int]:
    """One attempt; how many pieces each process has made. With a death it ends as an operator would end it."""
    log = volumes / "made" / f"{run}-{attempt}"
    log.mkdir(parents=True)
    started = [
        _forks.Process(
            target=_work,
            args=(config, volumes / "models" / run / "data", volumes, attempt, rank, processes, log, death),
        )
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    if death:
        _await_death(started)
    for process in started:
        if death:
            process.kill()
        process.join(END_SECONDS)
        assert death or process.exitcode == 0, f"a process ended with {process.exitcode}"
    return {entry.name: len(entry.read_text().splitlines()) for entry in log.iterdir()}


def _await_death(started: list[multiprocessing.context.ForkServerProcess]) -> None:
    multiprocessing.connection.wait([process.sentinel for process in started], END_SECONDS)
    codes = [process.exitcode for process in started if process.exitcode is not None]
    assert set(codes) == {-signal.SIGKILL}, f"no process came to where it was to die: {codes}"


def _work(
    config: PrepareData, data: Path, volumes: Path, attempt: int, rank: int, processes: int, log: Path,
    death: Death | None,
) -> None:  # fmt: skip
    from llm_trainer.data import assembly, documents, sorted_keys, units
    from llm_trainer.data.prepare import Member, prepare
    from llm_trainer.data.sharing import Piece, Sharing

    units.SMALLEST = units.LARGEST = SMALL_UNIT
    sorted_keys.RUN, sorted_keys.AT_A_TIME = SMALL_RUN, 4 * SMALL_RUN
    documents.HELD = 100
    make = Sharing._make

    def dying(piece: Piece) -> Piece:
        def make_and_die(into: Path) -> None:
            piece.make(into)
            die()

        return Piece(piece.key, make_and_die)

    def made(self: Sharing, folder: Path, piece: Piece) -> None:
        here = death is not None and death.phase == folder.name
        make(self, folder, dying(piece) if here and death and not death.after else piece)
        with (log / str(rank)).open("a") as stream:
            stream.write(f"{folder.name}\n")
        if here:
            die()
        while not death and len(list(log.iterdir())) < processes:
            time.sleep(0.01)  # until each has made one

    Sharing._make = made  # type: ignore[method-assign]
    if death and death.phase == PUBLISH:
        setattr(assembly, "write_manifest", lambda *_: die())  # noqa: B010 -- it is another module's
    prepare(
        config, data, str(volumes), str(attempt), lambda _: None,
        member=Member(str(rank), first=rank == 0, processes=processes),
    )  # fmt: skip


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
