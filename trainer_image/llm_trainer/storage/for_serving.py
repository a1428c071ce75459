"""Fetches a model or an adapter for a serving: `python -m llm_trainer.storage.for_serving`, a container of its own.

$LLM_FETCH says what (`config.ModelFetch`), /progress how far it is, the termination message what it has become.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from llm_trainer.runtime.startup import importing

with importing():
    from llm_trainer.config import ModelFetch
    from llm_trainer.config.remote import FETCH_VARIABLE, parse
    from llm_trainer.protocol import ExitCode, FetchedInput, Termination
    from llm_trainer.runtime.errors import StageError, StorageError, classify
    from llm_trainer.runtime.last_words import report
    from llm_trainer.runtime.progress import Board
    from llm_trainer.storage.cache import fetch, listed
    from llm_trainer.storage.meter import Meter
    from llm_trainer.storage.remote_files import Listing, TransientError
    from llm_trainer.storage.request import Request, fetched_input
    from llm_trainer.storage.sources import Sources
    from llm_trainer.storage.speed import Speed

STAGE = "fetch"  # what its progress names


def run(wanted: ModelFetch, board: Board) -> Listing:
    """What there is of it, and unless it was only looked for, have that in the cache.

    Raises DataError, which names the field, and StorageError.
    """
    request = Request(claim="", cache=wanted.cache, writer="", inputs=[wanted.input], credentials=wanted.credentials)
    try:
        source = Sources(request).of(parse(wanted.input.uri))
        if wanted.cache:
            meter, speed = Meter(), Speed()
            with meter.shown(lambda *figures: board.update(phase="Fetching", **speed.figures(*figures))):
                return fetch(wanted.input, source, Path(wanted.cache), meter).listing
        return listed(wanted.input, source)
    except TransientError as error:
        raise StorageError(f"{wanted.input.field}: {error}; it is asked again") from error
    except StageError as error:
        raise type(error)(f"{wanted.input.field}: {error}") from error


def told(wanted: ModelFetch, listing: Listing) -> FetchedInput:
    return fetched_input(wanted.input.uri, listing.revision, listing.bytes, listing.license)


def leave(_number: int, _frame: FrameType | None) -> None:
    """What is committed stays, and the next pod goes on there."""
    report(Termination(reason="Preempted", message="asked to leave while fetching", exit_code=ExitCode.PREEMPTED))
    os._exit(ExitCode.PREEMPTED)


def main() -> int:
    signal.signal(signal.SIGTERM, leave)
    board = Board(STAGE, 0)
    try:
        wanted = ModelFetch.model_validate_json(os.environ[FETCH_VARIABLE])
        board.serve()
        found = told(wanted, run(wanted, board))
    except Exception as error:  # noqa: BLE001 -- whatever it is, the operator must learn of it
        code, reason, message = classify(error)
        print(f"{reason}: {message}", file=sys.stderr, flush=True)
        report(Termination(reason=reason, message=message, exit_code=code))
        return int(code)
    board.update(inputs=[found])
    what = "fetched" if wanted.cache else "found"
    print(f"{what} {found.uri}: {found.bytes:,} bytes, revision {found.revision}", flush=True)
    report(Termination(reason="Succeeded", progress=board.progress))
    return 0


if __name__ == "__main__":
    sys.exit(main())
