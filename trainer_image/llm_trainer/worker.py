"""One process of a stage, forked by the launcher."""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Callable

from llm_trainer.config import KINDS, StageConfig
from llm_trainer.protocol import ExitCode, Termination
from llm_trainer.report.write import Reporter
from llm_trainer.runtime.errors import ConfigurationError, classify
from llm_trainer.runtime.last_words import write_last_words
from llm_trainer.runtime.library_words import quieten
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.startup import Startup, importing
from llm_trainer.stages.fetched import fetch_inputs, located
from llm_trainer.stages.inputs import verified
from llm_trainer.stages.takeover import begin, end

Stage = Callable[[StageConfig, Board], str]
# Failures that no other process or volume has to do with; for others a report would only keep the end waiting.
REPORTED = (ExitCode.DATA, ExitCode.CONFIGURATION, ExitCode.INTERNAL, ExitCode.OUT_OF_MEMORY)
SECONDS_AT_END, SECONDS_IN_HASTE = 10.0, 2.0  # for what is told of the stage; a pod that was asked to leave has no time
STAGES = ("prepare_data", *KINDS)  # a field of StageConfig and a module of llm_trainer.stages


def stage_of(config: StageConfig) -> Stage:
    """The function that runs the stage; imported only now, as each needs other libraries."""
    chosen = [name for name in STAGES if getattr(config, name) is not None]
    if len(chosen) != 1:
        raise ConfigurationError(f"exactly one of {', '.join(STAGES)} must be set, not {chosen or 'none'}")
    with importing():
        run: Stage = importlib.import_module(f"llm_trainer.stages.{chosen[0]}").run
    return run


def work(config: StageConfig, startup: Startup) -> int:
    """Run this process's part of the stage, leave its last words, and return its exit code."""
    quieten()
    rank = int(os.environ["RANK"])
    board = Board(config.stage, config.attempt, startup)
    if int(os.environ["LOCAL_RANK"]) == 0:
        board.serve()
    try:
        if config.prepare_data is None:
            config = located(config)
        message = begin(config, board, rank)
        if message is None:
            config = fetch_inputs(config, board, rank)
            with verified(config, rank):
                run = stage_of(config)
            startup.reached("libraries")
            message = run(config, board)
            if rank == 0:
                end(config, board.progress)
        code, reason = ExitCode.SUCCEEDED, "Succeeded"
        if rank == 0:
            print(f"{config.stage}: {message}", flush=True)
            Reporter(config, board).write()
    except Exception as error:  # noqa: BLE001 -- whatever it is, the operator must learn of it
        traceback.print_exc()
        code, reason, message = classify(error)
        if rank == 0 and code in REPORTED:
            Reporter(config, board).write(f"stage {config.stage}, attempt {config.attempt}: {reason}: {message}")
    for give in board.at_end:
        give(SECONDS_AT_END if code in (ExitCode.SUCCEEDED, *REPORTED) else SECONDS_IN_HASTE)
    progress = board.progress if rank == 0 else None
    write_last_words(Termination(reason=reason, message=message, exit_code=code, rank=rank, progress=progress))
    return code
