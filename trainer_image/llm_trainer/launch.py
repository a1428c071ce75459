"""A pod's entry point: starts the pod's processes, one for each GPU, and turns their ends into the pod's last word."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from llm_trainer.config import StageConfig
from llm_trainer.protocol import CONFIG_PATH, RENDEZVOUS_PORT, ExitCode, Termination
from llm_trainer.runtime.cpus import processes_that_fit
from llm_trainer.runtime.errors import classify
from llm_trainer.runtime.gate import Meeting, open_meeting, token_of
from llm_trainer.runtime.last_words import cause, folder, killed, read_last_words, report
from llm_trainer.runtime.processes import run_processes
from llm_trainer.runtime.startup import Startup
from llm_trainer.runtime.unpickling import FORCED
from llm_trainer.worker import work

PREPARING_BYTES = 1 << 30  # of memory that a process of data preparation takes


def main() -> int:
    # PID 1 loses a SIGTERM for which it has no handler; a blocked one waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    startup = Startup()
    node_rank = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    try:
        config = StageConfig.model_validate_json(Path(os.environ.get("LLM_STAGE_CONFIG", CONFIG_PATH)).read_bytes())
        meeting = meeting_of(config, node_rank)
    except (OSError, ValidationError) as error:
        code, reason, message = classify(error)
        report(Termination(reason=reason, message=message, exit_code=code))
        return code
    startup.reached("configuration")
    shutil.rmtree(folder(), ignore_errors=True)

    count = processes_of(config)

    def process(local_rank: int) -> int:
        os.environ.update({**environment(config, node_rank, local_rank, count), **meeting.environment()})
        return work(config, startup)

    first_rank = node_rank * count
    ends = run_processes(process, count)
    meeting.end()
    last_word = pod_end({first_rank + local_rank: code for local_rank, code in ends.items()})
    report(last_word)
    return last_word.exit_code


def meeting_of(config: StageConfig, node_rank: int) -> Meeting:
    first_pod = "127.0.0.1" if config.nodes == 1 else os.environ["MASTER_ADDR"]
    port = int(os.environ.get("LLM_RENDEZVOUS_PORT", RENDEZVOUS_PORT))
    return open_meeting(node_rank, config.nodes, first_pod, port, token_of(config.uid, config.stage, config.attempt))


def processes_of(config: StageConfig) -> int:
    """Of the pod. In data preparation, whose processes share work as it comes, as many as it has room for."""
    return processes_that_fit(PREPARING_BYTES) if config.prepare_data else config.processes_per_node


def environment(config: StageConfig, node_rank: int, local_rank: int, processes: int) -> dict[str, str]:
    """What torch, DeepSpeed, accelerate and TRL read of the group; the names are torchrun's."""
    given = {
        "RANK": node_rank * processes + local_rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": config.nodes * processes,
        "LOCAL_WORLD_SIZE": processes,
        "GROUP_RANK": node_rank,
        "MASTER_ADDR": "127.0.0.1" if config.nodes == 1 else os.environ["MASTER_ADDR"],
        "MASTER_PORT": os.environ.get("LLM_RENDEZVOUS_PORT", RENDEZVOUS_PORT),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": 1,
        "HF_HUB_DISABLE_PROGRESS_BARS": 1,  # transformers' too; in a log a bar is a line for each of its states
    }
    if config.device == "cpu":
        # Where DeepSpeed only might compile something, all of torch's compiler would be imported.
        given["TORCHDYNAMO_DISABLE"] = 1
    if processes > 1:
        given["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", 1)
    return {**{name: str(value) for name, value in given.items()}, **FORCED}


def pod_end(ends: Mapping[int, int]) -> Termination:
    """The pod's last word. `ends`: by rank the exit code, or the negative of the signal that ended the process."""
    words = read_last_words()
    if not any(ends.values()):
        first = min(ends)
        return words.get(first, Termination(reason="Succeeded", rank=first))
    for rank, code in ends.items():
        if rank in words and words[rank].exit_code:
            continue
        if code < 0:  # perhaps after it had said that it succeeded
            words[rank] = killed(rank, -code)
        elif code == ExitCode.HANG:  # by the watchdog, which has nobody to ask
            message = f"process of rank {rank} made no step for too long and was ended; its stacks are in the log"
            words[rank] = Termination(reason="Hang", message=message, exit_code=ExitCode.HANG, rank=rank)
        elif code > 0:
            message = f"process of rank {rank} ended with exit code {code} before it could say why"
            words[rank] = Termination(reason="InternalError", message=message, exit_code=ExitCode.INTERNAL, rank=rank)
    return cause([*words.values()])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
