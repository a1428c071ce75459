"""How the pod of a Job ends: its exit code, and its last word, which the operator reads."""

from __future__ import annotations

import errno
import json
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from llm_app.away import AwayError
from llm_app.documents import DataError
from llm_app.requests import RequestError
from llm_app.store import IndexDamagedError
from llm_trainer.protocol import TERMINATION_MESSAGE_BYTES, TERMINATION_MESSAGE_PATH, ExitCode

PROBLEM_CHARACTERS = 1000
STORAGE_FULL = (errno.ENOSPC, errno.EDQUOT)


def ended(work: Callable[[], dict[str, object]]) -> tuple[int, dict[str, object]]:
    """The exit code and the last word of what is done here."""
    try:
        return ExitCode.SUCCEEDED, work()
    except DataError as error:
        return ExitCode.DATA, problem(str(error))
    except IndexDamagedError as error:
        return ExitCode.STORAGE, problem(str(error))
    except AwayError as error:
        return error.code, problem(str(error))
    except OSError as error:
        return (ExitCode.NO_SPACE if error.errno in STORAGE_FULL else ExitCode.STORAGE), problem(str(error))
    except RequestError as error:
        return ExitCode.INTERNAL, problem(str(error))
    except Exception as error:  # noqa: BLE001 -- the last word, and the trace in the log
        traceback.print_exc()
        return ExitCode.INTERNAL, problem(f"{type(error).__name__}: {error}")


def problem(text: str) -> dict[str, object]:
    return {"problem": text[:PROBLEM_CHARACTERS]}


def tell(word: Mapping[str, object]) -> None:
    """In the log too. Outside of a pod there is nobody to tell."""
    text = json.dumps(word, ensure_ascii=False)
    print(text, flush=True)
    try:
        Path(TERMINATION_MESSAGE_PATH).write_bytes(text.encode()[:TERMINATION_MESSAGE_BYTES])
    except OSError:
        return
