"""One process of a stage, started by `llm_trainer.launch`: `python -m llm_trainer`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from llm_trainer.config import KINDS, StageConfig
from llm_trainer.protocol import CONFIG_PATH, ExitCode, Termination
from llm_trainer.runtime.errors import ConfigurationError, classify
from llm_trainer.runtime.last_words import write_last_words
from llm_trainer.runtime.progress import Board

Stage = Callable[[StageConfig, Board], str]
STAGES = ("prepare_data", *KINDS)  # a field of StageConfig and a module of llm_trainer.stages


def stage_of(config: StageConfig) -> Stage:
    """The function that runs the stage; imported only now, as each needs other libraries."""
    chosen = [name for name in STAGES if getattr(config, name) is not None]
    if len(chosen) != 1:
        raise ConfigurationError(f"exactly one of {', '.join(STAGES)} must be set, not {chosen or 'none'}")
    run: Stage = importlib.import_module(f"llm_trainer.stages.{chosen[0]}").run
    return run


def main() -> int:
    rank = int(os.environ.get("RANK", "0"))
    config = StageConfig.model_validate_json(Path(os.environ.get("LLM_STAGE_CONFIG", CONFIG_PATH)).read_bytes())
    board = Board(config.stage, config.attempt)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        board.serve()
    try:
        message = stage_of(config)(config, board)
        code, reason = ExitCode.SUCCEEDED, "Succeeded"
        if rank == 0:
            print(f"{config.stage}: {message}", flush=True)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the operator must learn of it
        traceback.print_exc()
        code, reason, message = classify(error)
    progress = board.progress if rank == 0 else None
    write_last_words(Termination(reason=reason, message=message, exit_code=code, rank=rank, progress=progress))
    return code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # After a failure threads of a torn process group may never end.
    os._exit(code)
