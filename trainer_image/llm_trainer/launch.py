"""A pod's entry point: waits for the first pod's name, runs torchrun, and turns its end into the pod's last word."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from llm_trainer.config import StageConfig
from llm_trainer.protocol import CONFIG_PATH, RENDEZVOUS_PORT, ExitCode, Termination
from llm_trainer.runtime.errors import classify
from llm_trainer.runtime.last_words import cause, folder, killed, read_last_words, report

NAME_SECONDS = 300.0  # until the first pod must be scheduled and its name resolve


def main() -> int:
    try:
        config = StageConfig.model_validate_json(Path(os.environ.get("LLM_STAGE_CONFIG", CONFIG_PATH)).read_bytes())
    except (OSError, ValidationError) as error:
        code, reason, message = classify(error)
        report(Termination(reason=reason, message=message, exit_code=code))
        return code
    node_rank = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    first = "127.0.0.1" if config.nodes == 1 else os.environ["MASTER_ADDR"]
    if not resolves(first, NAME_SECONDS):
        message = f"the name of the first pod, {first}, did not resolve within {NAME_SECONDS:.0f} s"
        report(Termination(reason="PeerLost", message=message, exit_code=ExitCode.PEER_LOST))
        return ExitCode.PEER_LOST
    shutil.rmtree(folder(), ignore_errors=True)
    last_word = torchrun(config, node_rank, first)
    report(last_word)
    return last_word.exit_code


def resolves(name: str, limit_seconds: float) -> bool:
    """Whether a name resolves in time: a new pod's may lag behind the pod."""
    end = time.monotonic() + limit_seconds
    while True:
        try:
            socket.getaddrinfo(name, RENDEZVOUS_PORT)
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.5)
        else:
            return True


def torchrun(config: StageConfig, node_rank: int, first: str) -> Termination:
    """Run this pod's processes to their end."""
    from torch.distributed import run as torch_run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    arguments = torch_run.parse_args(  # type: ignore[no-untyped-call]
        [
            f"--nnodes={config.nodes}",
            f"--nproc-per-node={config.processes_per_node}",
            f"--node-rank={node_rank}",
            f"--master-addr={first}",
            f"--master-port={os.environ.get('LLM_RENDEZVOUS_PORT', RENDEZVOUS_PORT)}",
            "--max-restarts=0",
            "--monitor-interval=0.05",
            # SIGTERM is passed on by us: torchrun would kill after 30 s what may still be saving.
            "--signals-to-handle=SIGINT",
            "-m",
            "llm_trainer",
        ]
    )
    launch_config, command, command_arguments = torch_run.config_from_args(arguments)
    signal.signal(signal.SIGTERM, pass_on)
    try:
        elastic_launch(launch_config, command)(*command_arguments)
    except ChildFailedError as error:
        words = read_last_words()
        for rank, failure in error.failures.items():
            if rank not in words and failure.exitcode < 0:
                words[rank] = killed(rank, -failure.exitcode)
            elif rank not in words:
                message = f"process of rank {rank} ended with exit code {failure.exitcode} before it could say why"
                words[rank] = Termination(
                    reason="InternalError", message=message, exit_code=ExitCode.INTERNAL, rank=rank
                )
        return cause([*words.values()])
    except Exception as error:  # noqa: BLE001 -- the rendezvous: another pod is gone or never came
        message = f"the processes could not meet: {type(error).__name__}: {error}".splitlines()[0]
        return Termination(reason="PeerLost", message=message, exit_code=ExitCode.PEER_LOST)
    words = read_last_words()
    first_rank = node_rank * config.processes_per_node
    return words.get(first_rank, Termination(reason="Succeeded", rank=first_rank))


def pass_on(number: int, _frame: FrameType | None) -> None:
    for child in children():
        os.kill(child, number)


def children() -> list[int]:
    """Processes that this one started."""
    found: list[int] = []
    for listing in Path("/proc/self/task").glob("*/children"):
        found += [int(pid) for pid in listing.read_text().split()]
    return found


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch apart would only delay the next attempt
