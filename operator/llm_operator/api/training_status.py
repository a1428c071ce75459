"""``LLMTraining.status``: what the operator answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llm_operator.api.common import Condition, Status


class Checkpoint(Status):
    """The newest committed checkpoint."""

    step: int = Field(description="Optimizer step after which it was taken.")
    uri: str = Field(description="Its folder, pvc://CLAIM/PATH.")
    time: str = Field(description="When it was committed.")
    digest: str | None = Field(default=None, description="As a result's; the next attempt takes no other.")


class Result(Status):
    """What a stage made: prepared data or a model."""

    uri: str = Field(description="Its folder, pvc://CLAIM/PATH.")
    digest: str = Field(description="sha256:… over the manifest of its files.")
    kind: str = Field(description="data, model, rewardModel or adapter.")
    step: int = Field(default=0, description="Optimizer step at which it was exported.")
    base: str | None = Field(default=None, description="Of an adapter: the model that it belongs to.")
    base_digest: str | None = Field(default=None, description="Of an adapter: the digest of that model, if it has one.")


class WorkerStatus(Status):
    """One pod of the attempt that is under way."""

    rank: int = Field(description="Rank of its first process in the process group.")
    processes: int = Field(default=1, description="Its processes; their ranks follow one another.")
    pod: str = Field(description="Its name.")
    node: str = Field(description="The node that the pod runs on.")


class ProgressStatus(Status):
    """What rank 0 told last."""

    phase: str = Field(default="", description="Starting, Training, Evaluating, Saving, Exporting or Done.")
    step: int = Field(default=0, description="Optimizer steps made, in all attempts.")
    steps: int = Field(default=0, description="Optimizer steps of the stage.")
    percent: int = Field(default=0, description="step over steps.")
    tokens: int = Field(default=0, description="Tokens trained on.")
    loss: str | None = Field(default=None, description="Training loss of the last step, nats per token, a decimal.")
    tokens_per_second: int | None = Field(default=None, description="Of all processes together.")
    eta_seconds: int | None = Field(default=None, description="Seconds until the last step at this speed.")
    evaluation: dict[str, str] = Field(
        default_factory=dict, description="Newest held-out figures, such as loss and bitsPerByte/SOURCE, as decimals."
    )
    evaluation_left_out: int | None = Field(
        default=None,
        description="Further figures: over 64 (12 in a stage whose turn it is not), or with a bad or "
        "long name. Absent: none.",
    )
    world_size: int = Field(default=1, description="Processes.")
    attention: str | None = Field(
        default=None,
        description="What computes attention (flash_attention_2, varlen, sdpa or eager), and why it is nothing faster.",
    )
    last_heartbeat_time: str | None = Field(default=None, description="Last sign of life of rank 0.")


class AttemptStatus(Status):
    """One Job of a stage."""

    number: int = Field(description="Counts from 1 in each stage.")
    job: str = Field(description="Name of its Job.")
    start_time: str = Field(description="When it was created.")
    end_time: str | None = Field(default=None, description="When its end was seen.")
    fault: Literal["Own", "Infrastructure", "Configuration"] | None = Field(
        default=None, description="Whose fault the end was; decides which budget of restarts pays."
    )
    reason: str | None = Field(default=None, description="Why it ended, in one word.")
    message: str | None = Field(default=None, description="The cause: pod, node, container, exit code, last word.")


class NoticeStatus(Status):
    """Something to know that is no failure."""

    reason: str = Field(description="In one word, such as CheckpointSetAside.")
    message: str = Field(description="What happened and what was done.")


class ModelStatus(Status):
    """The size of the model that spec.model.architecture describes."""

    parameters: int = Field(description="All of them.")
    active_parameters: int = Field(description="Those that one token uses; fewer in a mixture of experts.")


class SinceProgress(Status):
    """What is used of spec.restarts since a stage last got on."""

    own: int = Field(default=0, description="Of spec.restarts.own.")
    infrastructure: int = Field(default=0, description="Of spec.restarts.infrastructure.")
    step: int | None = Field(default=None, description="Of the checkpoint at the last fault. Absent: none yet.")


class StageStatus(Status):
    """One stage; data preparation is the first and is named data."""

    name: str = Field(description="As in spec.stages.")
    kind: str = Field(description="prepareData or the stage kind that is set in spec.stages.")
    state: Literal["Pending", "Running", "Succeeded", "Failed"] = Field(
        default="Pending", description="Where the stage stands."
    )
    nodes: int = Field(default=1, description="Pods of an attempt.")
    memory_per_process: str | None = Field(
        default=None,
        description="Weights, gradients and optimizer state of each process (Rajbhandari et al. 2020); activations "
        "come on top. Absent where the spec does not tell the size.",
    )
    flops_per_token: int | None = Field(
        default=None,
        description="Of training on the longest row (Chowdhery et al. 2022, appendix B). Absent where the spec does "
        "not tell the size.",
    )
    start_time: str | None = Field(default=None, description="When its first attempt was created.")
    end_time: str | None = Field(default=None, description="When it succeeded or failed.")
    own_restarts: int = Field(default=0, description="Restarts after own faults, in all.")
    infrastructure_restarts: int = Field(default=0, description="Restarts after faults of the infrastructure, in all.")
    since_progress: SinceProgress | None = Field(
        default=None, description="What is used of spec.restarts. Absent: nothing."
    )
    attempts: list[AttemptStatus] = Field(
        default_factory=list, description="The newest ten, oldest first; three of a stage whose turn it is not."
    )
    workers: list[WorkerStatus] = Field(
        default_factory=list, description="Which pod of the attempt under way runs where, by rank; the first 64."
    )
    workers_left_out: int | None = Field(default=None, description="Further pods. Absent: none.")
    progress: ProgressStatus | None = Field(default=None, description="What rank 0 told last.")
    checkpoint: Checkpoint | None = Field(default=None, description="Where the next attempt would go on.")
    result: Result | None = Field(default=None, description="The newest result.")
    notices: list[NoticeStatus] = Field(
        default_factory=list, description="The newest twenty, oldest first; three of a stage whose turn it is not."
    )
    notices_left_out: int | None = Field(default=None, description="Older ones, told by events. Absent: none.")


class LLMTrainingStatus(Status):
    observed_generation: int | None = Field(default=None, description="metadata.generation that this is about.")
    observed_restart_token: str | None = Field(default=None, description="spec.restartToken that this is about.")
    phase: str = Field(default="Pending", description="The conditions in one word; for people, not for programs.")
    model: ModelStatus | None = Field(
        default=None, description="Absent where the spec does not tell: an existing model or tokenizer."
    )
    run_uri: str | None = Field(
        default=None, description="The folder of all that the training writes; for spec.resumeFrom of another."
    )
    stage: str | None = Field(default=None, description="The stage whose turn it is.")
    progress: str = Field(default="", description="Steps made, steps in all and per cent of the stage.")
    loss: str | None = Field(default=None, description="Newest training loss, nats per token, a decimal.")
    nodes: int = Field(default=0, description="Pods of the stage.")
    restarts: int = Field(default=0, description="Restarts of all stages.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Accepted, Running, and in the end Succeeded or Failed.",
    )
    stages: list[StageStatus] = Field(default_factory=list, description="In order, data preparation first.")
