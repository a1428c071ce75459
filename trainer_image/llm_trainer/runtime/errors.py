"""How a stage says why it ends: each exception has the exit code and the reason that the operator reads."""

from __future__ import annotations

from typing import ClassVar

from llm_trainer.protocol import ExitCode


class StageError(Exception):
    """An end whose cause is known; the message is for the user and names the field, the value and what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    reason: ClassVar[str] = "InternalError"


class DataError(StageError):
    """Bad rows, files or columns: another attempt would end the same."""

    exit_code = ExitCode.DATA
    reason = "DataError"


class ConfigurationError(StageError):
    """Settings that can't work: another attempt would end the same."""

    exit_code = ExitCode.CONFIGURATION
    reason = "ConfigurationError"
