"""What a training pod tells the operator: exit codes, /progress and the termination message. Imports nothing heavy."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

CONFIG_PATH = "/etc/llm-operator/stage.json"
PROGRESS_PORT = 9400  # rank 0: /progress (JSON) and /metrics (Prometheus); every other pod: /metrics
RENDEZVOUS_PORT = 29500
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
TERMINATION_MESSAGE_BYTES = 4096  # the kubelet cuts there


class ExitCode(IntEnum):
    """How a stage's container ends; the numbers are those of sysexits(3) where one fits."""

    SUCCEEDED = 0
    DATA = 65  # bad rows, files or columns: fails at once
    INTERNAL = 70  # an exception that is none of the others: costs an attempt
    STORAGE = 74  # the volume can't be read at this moment: an infrastructure restart
    NO_SPACE = 73  # the disk is full: costs an attempt, reason NoSpace
    PREEMPTED = 75  # asked to leave, checkpoint committed: an infrastructure restart
    CONFIGURATION = 78  # the configuration can't work: fails at once
    HANG = 79  # no step within the limit; stacks are in the log
    OUT_OF_MEMORY = 80
    STALE = 81  # a newer attempt owns the stage: this one may not write
    PEER_LOST = 82  # another process of the group is gone: its own end is the cause, not this one


class Message(BaseModel):
    # A figure may be NaN when a training diverges, and must arrive as such. JSON has no such number: it is the text
    # "NaN", which is read back as one. null would make the message unreadable.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", ser_json_inf_nan="strings"
    )


# The status holds no more: whatever answers, the operator takes nothing else for an answer.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Time = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
Folder = Annotated[str, Field(pattern=r"^pvc://[!-~]+$", max_length=512)]  # below StageConfig.run_uri: ASCII
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=-(2**31), lt=2**31)]  # of a process, an attempt, an exit code


class CheckpointInfo(Message):
    step: Count
    uri: Folder
    time: Time = Field(description="Seconds since the epoch at which it was committed.")
    digest: Digest | None = Field(default=None, description="Over its manifest.")


class Result(Message):
    """An exported model (kind model) or the prepared data (kind data)."""

    uri: Folder
    digest: Digest = Field(description="Over the result's manifest.")
    kind: str = Field(pattern=r"^[A-Za-z]+$", max_length=32)
    step: Count = 0
    base: str | None = Field(
        default=None,
        pattern=r"^pvc://[^\x00-\x1f\x7f]+$",
        max_length=1024,
        description="Of an adapter: URI of the model that it belongs to.",
    )
    base_digest: Digest | None = Field(default=None, description="Of that model, if it has one.")


class Notice(Message):
    """Something a user should know that is not a failure, such as CheckpointSetAside; becomes a Kubernetes event."""

    reason: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=64, description="In one word.")
    message: str


class Worker(Message):
    rank: Number
    host: str
    node: str


class Progress(Message):
    """Rank 0's view of the stage. Counts are global, over all processes and all attempts."""

    stage: str
    attempt: Number
    phase: str = Field(default="Starting", description="Starting, Training, Evaluating, Saving, Exporting or Done.")
    step: Count = 0
    total_steps: Count = 0
    tokens: Count = 0
    total_tokens: Count = 0
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    world_size: Count = 1
    attention: str | None = Field(default=None, description="What computes attention, and why it is nothing faster.")
    workers: list[Worker] = Field(default_factory=list)
    evaluation: dict[str, float] = Field(
        default_factory=dict, description="Newest held-out figures, such as loss and bitsPerByte/SOURCE."
    )
    checkpoint: CheckpointInfo | None = None
    result: Result | None = None
    notices: list[Notice] = Field(default_factory=list)
    heartbeat: Time = Field(default=0.0, description="Seconds since the epoch of the last sign of life.")


class Termination(Message):
    """The last word of a container, written to its termination message."""

    reason: str = Field(description="CamelCase, such as Succeeded, DataError, NoSpace, Killed.")
    message: str = ""
    exit_code: Number = 0
    rank: Number = 0
    progress: Progress | None = None
    without_adapters: str | None = Field(default=None, description="Why a serving pod loads no adapters.")
