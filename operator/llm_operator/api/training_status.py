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

    rank: int = Field(description="Of its first process by the pod's index; the trainer orders ranks by zone.")
    processes: int = Field(default=1, description="Its processes; their ranks follow one another.")
    pod: str = Field(description="Its name.")
    node: str = Field(description="The node that the pod runs on.")


class ScoreStatus(Status):
    """A metric of a task of spec.stages[].evaluation."""

    name: str = Field(description="TASK/METRIC, or TASK/METRIC,FILTER.")
    value: str = Field(description="A decimal.")
    stderr: str | None = Field(default=None, description="Standard error of the value, where it has one, a decimal.")
    samples: int = Field(default=0, description="Questions.")
    few_shot: int = Field(default=0, description="Examples before each question.")


class ReadStatus(Status):
    """What a pretrain stage has read of a source, or of a domain and language, against its mixture."""

    source: str | None = Field(default=None, description="Its name. Absent: all with this domain and language.")
    domain: str = Field(default="", description="As the sources say.")
    language: str = Field(default="", description="As the sources say.")
    tokens: int = Field(description="Read in this stage.")
    share: str = Field(description="Of all that it has read, a decimal.")
    asked: str = Field(description="The share that the mixture asks for so far, before limits, a decimal.")
    epochs: str | None = Field(default=None, description="Passes over the source, with those of stages before.")


class ProgressStatus(Status):
    """What rank 0 told last."""

    phase: str = Field(default="", description="Starting, Training, Evaluating, Saving, Exporting or Done.")
    step: int = Field(default=0, description="Optimizer steps made, in all attempts.")
    steps: int = Field(default=0, description="Optimizer steps of the stage.")
    percent: int = Field(default=0, description="step over steps.")
    tokens: int = Field(default=0, description="Tokens trained on.")
    loss: str | None = Field(
        default=None, description="Training loss of the last step, by the objective of the stage, a decimal."
    )
    tokens_per_second: int | None = Field(default=None, description="Of all processes together.")
    eta_seconds: int | None = Field(default=None, description="Seconds until the last step at this speed.")
    device: str | None = Field(default=None, description="What rank 0 computes on, by its vendor's name.")
    mfu: str | None = Field(
        default=None,
        description="Share of the GPUs' peak arithmetic that training takes, a decimal (Chowdhery et al. 2022). Absent "
        "where it is not known.",
    )
    fetched_bytes: int | None = Field(default=None, description="Of data preparation, from hubs, buckets and servers.")
    units: int | None = Field(default=None, description="Of data preparation: units that this pass has made.")
    total_units: int | None = Field(default=None, description="Of data preparation: units of the corpus.")
    bytes_per_second: int | None = Field(default=None, description="Of data preparation, all pods together.")
    fetch_bytes: int | None = Field(default=None, description="To be fetched, as far as it is known.")
    evaluation: dict[str, str] = Field(
        default_factory=dict, description="Newest held-out figures, such as loss and bitsPerByte/SOURCE, as decimals."
    )
    evaluation_left_out: int | None = Field(
        default=None,
        description="Further figures: over 64 (6 in a stage whose turn it is not), or with a bad or "
        "long name. Absent: none.",
    )
    scores: list[ScoreStatus] = Field(
        default_factory=list,
        description="Of the newest result, by the stage's tasks; 32 (4 of a stage whose turn it is not).",
    )
    scores_left_out: int | None = Field(default=None, description="Further scores. Absent: none.")
    sources: list[ReadStatus] = Field(
        default_factory=list,
        description="Of pretrain: the 16 most read; 2 in a stage whose turn it is not.",
        exclude_if=lambda value: not value,
    )
    domains: list[ReadStatus] = Field(
        default_factory=list, description="The same by domain and language.", exclude_if=lambda value: not value
    )
    sources_left_out: int | None = Field(default=None, description="Further entries of both. Absent: none.")
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


class TokenCount(Status):
    """Tokens to train on and held out."""

    domain: str = Field(default="", description="As the sources say.")
    language: str = Field(default="", description="As the sources say.")
    tokens: int = Field(description="Of all sources with this domain and language.")


class DropCount(Status):
    """Documents that data preparation left out."""

    reason: str = Field(description="duplicate, empty, notUtf8, or filter.threshold of spec.data.quality.")
    documents: int = Field(description="How many.")


class DataStatus(Status):
    """What data preparation made of the corpus."""

    tokens: list[TokenCount] = Field(default_factory=list, description="By domain and language: the 16 with most.")
    dropped: list[DropCount] = Field(default_factory=list, description="Documents by reason: the 16 with most.")
    left_out: int | None = Field(default=None, description="Further entries of both. Absent: none.")
    sources: dict[str, int] = Field(
        default_factory=dict,
        description="Tokens to train on by source, by which a mixture is checked before its stage has pods. Absent: of "
        "more than 64 sources, or not told.",
        exclude_if=lambda value: not value,
    )


class NoticeStatus(Status):
    """Something to know that is no failure."""

    reason: str = Field(description="In one word, such as CheckpointSetAside.")
    message: str = Field(description="What happened and what was done.")


class ModelSizeStatus(Status):
    """What data preparation has seen of a model, without its weights."""

    uri: str = Field(default="", description="Of its folder; empty for the model from scratch.")
    parameters: int = Field(description="All of them.")
    active: int = Field(description="Those that one token uses; fewer in a mixture of experts.")
    embedding: int = Field(description="Those that are looked up, not multiplied.")
    attention_width: int = Field(description="Heads × head size, summed over the layers that attend.")
    width: int = Field(description="Of the hidden state.")
    head: int = Field(default=0, description="Of an output matrix of its own; 0 where it is the embedding.")
    routed: int = Field(default=0, description="Of the experts among which a router chooses.")


class ModelStatus(Status):
    """The size of the model that spec.model describes."""

    parameters: int = Field(description="All of them.")
    active_parameters: int = Field(description="Those that one token uses; fewer in a mixture of experts.")


class SinceProgress(Status):
    """What is used of spec.restarts since a stage last got on."""

    own: int = Field(default=0, description="Of spec.restarts.own.")
    infrastructure: int = Field(default=0, description="Of spec.restarts.infrastructure.")
    step: int | None = Field(default=None, description="Of the checkpoint at the last fault. Absent: none yet.")


class InputStatus(Status):
    """What was fetched from a hub, a bucket or a server."""

    uri: str = Field(description="As the spec has it, without a query.")
    revision: str = Field(description="The commit of a hub; else it follows from what was listed.")
    bytes: int = Field(description="Of its files.")
    license: str = Field(default="", description="As the hub tells it.")


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
        description="Weights, gradients and optimizer state of each process (Rajbhandari et al. 2020): what it "
        "surely takes. Absent where neither the spec nor data preparation tells the size.",
    )
    flops_per_token: int | None = Field(
        default=None,
        description="Of training on the longest row (Chowdhery et al. 2022, appendix B). Absent where neither the spec "
        "nor data preparation tells the size.",
    )
    peak_memory: dict[str, str] | None = Field(
        default=None,
        description="Estimated of each process at its peak, by term, with activations (Korthikanti et al. 2022); total "
        "is their sum, pod the RAM of a pod. Absent where the spec does not tell the size.",
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
    inputs: list[InputStatus] = Field(
        default_factory=list,
        description="Of data preparation: the first 12 that it has fetched from elsewhere.",
        exclude_if=lambda value: not value,
    )
    models: list[ModelSizeStatus] = Field(
        default_factory=list, description="Of data preparation: the first 12 models that it has looked at."
    )
    data: DataStatus | None = Field(default=None, description="Of data preparation: what it made of the corpus.")
    notices: list[NoticeStatus] = Field(
        default_factory=list, description="The newest twenty, oldest first; three of a stage whose turn it is not."
    )
    notices_left_out: int | None = Field(default=None, description="Older ones, told by events. Absent: none.")


class PublicationStatus(Status):
    """A result on its way to a bucket or a hub."""

    stage: str = Field(description="Whose result.")
    to: str = Field(description="As in spec.publish.")
    state: Literal["Pending", "Publishing", "Published", "Failed"] = Field(description="Where it stands.")
    attempt: int = Field(default=1, description="Of its Job; spec.restartToken makes another of one that failed.")
    job: str | None = Field(default=None, description="Name of its Job.")
    digest: str | None = Field(default=None, description="Of the result.")
    revision: str | None = Field(default=None, description="The commit of a hub; of a bucket the manifest's ETag.")
    bytes: int | None = Field(default=None, description="Of all its files.")
    time: str | None = Field(default=None, description="When its end was seen.")
    message: str | None = Field(default=None, description="What it waits for, or why it failed.")


class LLMTrainingStatus(Status):
    observed_generation: int | None = Field(default=None, description="metadata.generation that this is about.")
    observed_restart_token: str | None = Field(default=None, description="spec.restartToken that this is about.")
    phase: str = Field(default="Pending", description="The conditions in one word; for people, not for programs.")
    model: ModelStatus | None = Field(
        default=None,
        description="Absent until it is known: of an existing model or tokenizer, and of most families, by data "
        "preparation.",
    )
    run_uri: str | None = Field(
        default=None, description="The folder of all that the training writes; for spec.resumeFrom of another."
    )
    stage: str | None = Field(default=None, description="The stage whose turn it is.")
    tokens: str = Field(default="", description="Of the corpus, to train on: such as 941, 15.3K, 2.1M, 20.0B, 1.2T.")
    progress: str = Field(default="", description="Steps made, steps in all and per cent of the stage.")
    loss: str | None = Field(
        default=None, description="Newest training loss of the stage, by its objective, a decimal."
    )
    nodes: int = Field(default=0, description="Pods of the stage.")
    restarts: int = Field(default=0, description="Restarts of all stages.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Accepted, Running, and in the end Succeeded or Failed; Published with spec.publish.",
    )
    stages: list[StageStatus] = Field(default_factory=list, description="In order, data preparation first.")
    publications: list[PublicationStatus] = Field(
        default_factory=list, description="Those of spec.publish.", exclude_if=lambda value: not value
    )
