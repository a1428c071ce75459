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
    EVALUATION = 83  # the stage's result misses a threshold that blocks it: fails at once
    DIVERGED = 84  # the loss went wrong again after the last rollback: fails at once


class Message(BaseModel):
    # A figure may be NaN when a training diverges, and must arrive as such. JSON has no such number: it is the text
    # "NaN", which is read back as one. null would make the message unreadable.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", ser_json_inf_nan="strings", defer_build=True
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


class ModelSize(Message):
    """Of a model that data preparation has built without its weights: from scratch, or in a user's folder."""

    uri: str = Field(
        default="", pattern=r"^[!-~]*$", max_length=256, description="Of its folder; empty for the one from scratch."
    )
    parameters: Count
    active: Count = Field(description="Those that one token uses.")
    embedding: Count = Field(description="Those that are looked up, not multiplied.")
    attention_width: Count = Field(description="Heads × head size, summed over the layers that attend.")
    width: Count = Field(description="Of the hidden state.")
    head: Count = Field(default=0, description="Of an output matrix of its own.")
    routed: Count = Field(default=0, description="Of the experts among which a router chooses.")


class FetchedInput(Message):
    """What data preparation has fetched from elsewhere."""

    uri: str = Field(pattern=r"^[!-~]*$", max_length=256, description="As the user wrote it, without a query.")
    revision: str = Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=128, description="A commit; or of what was listed.")
    bytes: Count
    license: str = Field(default="", pattern=r"^[!-~ ]*$", max_length=64, description="As the hub tells it.")


class TokenCount(Message):
    domain: str
    language: str
    tokens: Count


class ReadTokens(Message):
    """What a pretrain stage has read of a source, or of a domain and language, against what it was to read."""

    source: str | None = Field(default=None, description="None: of all sources with this domain and language.")
    domain: str
    language: str
    tokens: Count
    share: float = Field(description="Of the tokens that the stage has read.")
    asked: float = Field(description="The share of them that its mixture asks for, before limits.")
    epochs: float | None = Field(default=None, description="Passes over the source, with those of stages before.")


class DropCount(Message):
    reason: str = Field(description="duplicate, empty, notUtf8, or filter.threshold of spec.data.quality.")
    documents: Count


class DataFigures(Message):
    """What data preparation made of the corpus."""

    tokens: list[TokenCount] = Field(default_factory=list, description="By domain and language, most first.")
    dropped: list[DropCount] = Field(default_factory=list, description="Documents by reason, most first.")
    sources: dict[str, Count] = Field(default_factory=dict, description="Tokens to train on of each source.")


class Score(Message):
    """One metric of a task, as lm-eval has measured it of a result."""

    task: str = Field(max_length=64)
    metric: str = Field(max_length=128)
    filter: str = Field(default="none", max_length=128, description="Of the answers, before they are compared.")
    value: float
    stderr: float | None = Field(default=None, description="Standard error of the value, where it has one.")
    samples: Count = Field(default=0, description="Questions.")
    few_shot: Count = Field(default=0, description="Examples before each.")
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        """By which thresholds, metrics and people know it: TASK/METRIC, or TASK/METRIC,FILTER."""
        return f"{self.task}/{self.metric}" + ("" if self.filter == "none" else f",{self.filter}")


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
    device: str | None = Field(default=None, description="What rank 0 computes on, by its vendor's name.")
    mfu: float | None = Field(
        default=None, description="Share of the GPUs' arithmetic that the model's own takes, where their peak is known."
    )
    world_size: Count = 1
    attention: str | None = Field(default=None, description="What computes attention, and why it is nothing faster.")
    workers: list[Worker] = Field(default_factory=list)
    evaluation: dict[str, float] = Field(
        default_factory=dict, description="Newest held-out figures, such as loss and bitsPerByte/SOURCE."
    )
    scores: list[Score] = Field(default_factory=list, max_length=256, description="Of the newest result, by its tasks.")
    sources: list[ReadTokens] = Field(default_factory=list, description="Of pretrain, most tokens first.")
    domains: list[ReadTokens] = Field(default_factory=list, description="The same by domain and language.")
    data: DataFigures | None = Field(default=None, description="Of data preparation, once it is done.")
    checkpoint: CheckpointInfo | None = None
    result: Result | None = None
    notices: list[Notice] = Field(default_factory=list)
    models: list[ModelSize] = Field(default_factory=list, description="Of data preparation: those it has looked at.")
    inputs: list[FetchedInput] = Field(default_factory=list, description="Of data preparation: what it has fetched.")
    fetched_bytes: Count = 0
    fetch_bytes: Count = Field(default=0, description="To be fetched, as far as it is known.")
    units: Count = Field(default=0, description="Of data preparation: pieces of work of this pass that are made.")
    total_units: Count = 0
    bytes_per_second: float | None = Field(default=None, description="Of this pass, by all processes together.")
    heartbeat: Time = Field(default=0.0, description="Seconds since the epoch of the last sign of life.")


class PublishedResult(Message):
    """What a pod that publishes has brought to a bucket or a hub."""

    revision: str = Field(pattern=r"^[!-~]*$", max_length=128, description="A commit; of a bucket the manifest's ETag.")
    bytes: Count
    files: Count


class ServingStart(Message):
    """What a serving's launcher has seen of its start (llm_server/startup.py), once vLLM has answered. In seconds."""

    import_seconds: Time | None = None
    load_seconds: Time | None = None
    compile_seconds: Time | None = None
    warm_up_seconds: Time | None = None
    total_seconds: Time


class Termination(Message):
    """The last word of a container, written to its termination message."""

    reason: str = Field(description="CamelCase, such as Succeeded, DataError, NoSpace, Killed.")
    message: str = ""
    exit_code: Number = 0
    rank: Number = 0
    progress: Progress | None = None
    without_adapters: str | None = Field(default=None, description="Why a serving pod loads no adapters.")
    published: PublishedResult | None = Field(default=None, description="Of a pod that publishes, once it is done.")
