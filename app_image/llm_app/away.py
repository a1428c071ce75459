"""What is asked over the network, and does not do what it is asked for."""

from __future__ import annotations

from llm_trainer.protocol import ExitCode


class AwayError(Exception):
    """``passes``: what may be over when it is asked again; else it is about what was asked."""

    def __init__(self, message: str, *, passes: bool) -> None:
        super().__init__(message)
        self.passes = passes

    @property
    def code(self) -> ExitCode:
        """With which a Job ends that it is the cause of."""
        return ExitCode.INTERNAL if self.passes else ExitCode.DATA


class StoreError(AwayError):
    """Of a database. ``full``: it has no room."""

    def __init__(self, message: str, *, passes: bool = True, full: bool = False) -> None:
        super().__init__(message, passes=passes)
        self._full = full

    @property
    def code(self) -> ExitCode:
        return ExitCode.NO_SPACE if self._full else super().code
