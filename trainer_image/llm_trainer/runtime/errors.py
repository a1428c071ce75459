"""How a stage says why it ends: each exception has the exit code and the reason that the operator reads."""

from __future__ import annotations

import errno
import pickle
from typing import ClassVar

from pydantic import ValidationError

from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.unpickling import refused


class StageError(Exception):
    """An end whose cause is known; the message is for the user and names the field, the value and what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    reason: ClassVar[str] = "InternalError"


class DataError(StageError):
    """Bad rows, files or columns: another attempt would end the same."""

    exit_code = ExitCode.DATA
    reason = "DataError"


class DamagedFileError(DataError):
    """A file can't be decoded: it is damaged, or of another format than its name says."""


class ConfigurationError(StageError):
    """Settings that can't work: another attempt would end the same."""

    exit_code = ExitCode.CONFIGURATION
    reason = "ConfigurationError"


class DivergedError(StageError):
    """The loss watch has no rollback left: another attempt would go the same way."""

    exit_code = ExitCode.DIVERGED
    reason = "Diverged"


class EvaluationError(StageError):
    """The stage's result misses a threshold that blocks it: another attempt would make the same."""

    exit_code = ExitCode.EVALUATION
    reason = "EvaluationFailed"


class NoSpaceError(StageError):
    """The disk is full. What was committed before is untouched."""

    exit_code = ExitCode.NO_SPACE
    reason = "NoSpace"


class StorageError(StageError):
    """A volume that can't be read at this moment; what lies there is not known to be wrong."""

    exit_code = ExitCode.STORAGE
    reason = "StorageUnreadable"


class PreemptedError(StageError):
    """Asked to leave; a checkpoint is committed."""

    exit_code = ExitCode.PREEMPTED
    reason = "Preempted"


class PeerLostError(StageError):
    """Another process of the group is gone or never came."""

    exit_code = ExitCode.PEER_LOST
    reason = "PeerLost"


class StaleAttemptError(StageError):
    """A newer attempt owns the stage: nothing may be written any more."""

    exit_code = ExitCode.STALE
    reason = "StaleAttempt"


def error_of(reason: str, message: str) -> StageError:
    """The exception with this reason, as another rank has raised it."""
    kinds = {kind.reason: kind for kind in StageError.__subclasses__()}
    return kinds.get(reason, StageError)(message)


# What gloo and NCCL say when a process of the group has gone.
_PEER_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Timed out waiting",
    "NCCL communicator was aborted",
    "remote process exited",
)


# What torch, its libraries and NCCL say for want of memory, where it is not torch's OutOfMemoryError: on CPU too.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "_STATUS_ALLOC_FAILED",
    "Failed to CUDA calloc",
)
OUT_OF_MEMORY_ADVICE = "lower microBatchSize or the length of the rows, raise zeroStage, or give the stage more GPUs"


# What a disk or a network file system says of a moment in which it can't answer; the file itself may be as it was.
_UNREADABLE = (errno.EIO, errno.ESTALE, errno.EREMOTEIO)
_UNREACHABLE = (errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)  # also of a socket, which has no file name


_NO_SPACE = ("PytorchStreamWriter failed", "unexpected pos", "No space left")


def classify(error: BaseException) -> tuple[ExitCode, str, str]:
    """Exit code, reason and message of any exception."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, StageError):
        return error.exit_code, error.reason, text
    if isinstance(error, ValidationError):
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        return ExitCode.CONFIGURATION, ConfigurationError.reason, problems
    if isinstance(error, pickle.UnpicklingError):
        return ExitCode.DATA, DataError.reason, refused(error)
    if is_no_space(error):
        return ExitCode.NO_SPACE, NoSpaceError.reason, text
    if is_unreadable(error):
        return ExitCode.STORAGE, StorageError.reason, text
    if is_out_of_memory(error, text):
        said = " ".join(
            text.partition(" Of the allocated memory")[0].split()
        )  # then comes torch's advice to developers
        return ExitCode.OUT_OF_MEMORY, "OutOfMemory", f"{said.rstrip('.')}; {OUT_OF_MEMORY_ADVICE}"
    if any(words in text for words in _PEER_LOST):
        return ExitCode.PEER_LOST, "PeerLost", text.splitlines()[-1]
    return ExitCode.INTERNAL, StageError.reason, f"{type(error).__name__}: {text.splitlines()[-1]}"


def is_out_of_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def is_unreadable(error: BaseException | None) -> bool:
    """Whether a volume that could not answer is behind an exception."""
    while error is not None:
        if isinstance(error, OSError) and (
            error.errno in _UNREADABLE or (error.errno in _UNREACHABLE and error.filename is not None)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_no_space(error: BaseException | None) -> bool:
    """Whether a full disk or quota is behind an exception."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # torch's zip writer drops errno; "unexpected pos" is what closing a file cut short by a full disk gives
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_SPACE):
            return True
        error = error.__cause__ or error.__context__
    return False
