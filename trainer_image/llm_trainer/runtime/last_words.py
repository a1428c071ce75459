"""The last word of every process of a pod, and from them that of the pod."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from llm_trainer.protocol import TERMINATION_MESSAGE_BYTES, TERMINATION_MESSAGE_PATH, ExitCode, Termination

MESSAGE_CHARACTERS = 1500
CONSEQUENCES: dict[int, int] = {ExitCode.PREEMPTED: 1, ExitCode.PEER_LOST: 2}  # the larger, the less of a cause


def folder() -> Path:
    """Where the processes of one pod leave their last words for the launcher."""
    return Path(os.environ.get("LLM_LAST_WORDS", "/tmp/llm-trainer"))  # noqa: S108 -- the pod's own emptyDir


def write_last_words(termination: Termination) -> None:
    folder().mkdir(parents=True, exist_ok=True)
    (folder() / f"{termination.rank}.json").write_text(termination.model_dump_json(by_alias=True))


def read_last_words() -> dict[int, Termination]:
    """By rank; a process that was killed left none."""
    return {
        int(file.stem): Termination.model_validate_json(file.read_bytes()) for file in sorted(folder().glob("*.json"))
    }


def killed(rank: int, number: int) -> Termination:
    """For a process that a signal ended before it could say anything."""
    if number == signal.SIGTERM:
        message = f"process of rank {rank} was asked to leave before the first step"
        return Termination(reason="Preempted", message=message, exit_code=ExitCode.PREEMPTED, rank=rank)
    name = signal.Signals(number).name
    message = f"process of rank {rank} was killed by signal {number} ({name})"
    if number == signal.SIGKILL:
        message += "; if nobody did, the node was out of memory"
    return Termination(reason="Killed", message=message, exit_code=128 + number, rank=rank)


def cause(words: list[Termination]) -> Termination:
    """Why a pod failed: the end of a process that was no mere consequence of another's."""
    failed = [word for word in words if word.exit_code != ExitCode.SUCCEEDED]
    return min(failed, key=lambda word: CONSEQUENCES.get(word.exit_code, 0))


def report(termination: Termination) -> None:
    """Write the pod's termination message; cut to what the kubelet keeps."""
    file = Path(os.environ.get("LLM_TERMINATION_MESSAGE", TERMINATION_MESSAGE_PATH))
    short = termination.model_copy(update={"message": termination.message[-MESSAGE_CHARACTERS:]})
    text = short.model_dump_json(by_alias=True, exclude_none=True)
    # The operator was told of these before; the result and the checkpoint are what it can't do without.
    data = short.progress.data if short.progress else None
    spare: tuple[dict[str, object], ...] = (
        {"workers": [], "notices": [], "evaluation": {}, "scores": [], "sources": [], "domains": []},
        {"data": data.model_copy(update={"sources": {}}) if data else None}, {"data": None},
        {"models": []}, {"inputs": []},
    )  # fmt: skip
    for left_out in spare:
        if len(text.encode()) > TERMINATION_MESSAGE_BYTES and short.progress:
            short = short.model_copy(update={"progress": short.progress.model_copy(update=left_out)})
            text = short.model_dump_json(by_alias=True, exclude_none=True)
    if len(text.encode()) > TERMINATION_MESSAGE_BYTES:  # long names
        text = short.model_copy(update={"progress": None, "message": short.message[:500]}).model_dump_json(
            by_alias=True, exclude_none=True
        )
    file.write_text(text)
