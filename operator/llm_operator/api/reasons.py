"""Every condition type and every reason that a status, an attempt or an event can show."""

from __future__ import annotations

from enum import StrEnum


class TrainingCondition(StrEnum):
    """Conditions of an LLMTraining; Succeeded and Failed are terminal and exclude each other."""

    ACCEPTED = "Accepted"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ServingCondition(StrEnum):
    """Conditions of an LLMServing; Ready sums up."""

    MODEL_AVAILABLE = "ModelAvailable"
    ADAPTERS_AVAILABLE = "AdaptersAvailable"
    READY = "Ready"


class Reason(StrEnum):
    # the spec
    VALID = "Valid"
    INVALID_SPEC = "InvalidSpec"
    # waiting
    PENDING = "Pending"
    SUSPENDED = "Suspended"
    CLAIM_NOT_FOUND = "PersistentVolumeClaimNotFound"
    RUN_FOLDER_IN_USE = "RunFolderInUse"
    APPLY_REFUSED = "ApplyRefused"
    DELETE_REFUSED = "DeleteRefused"
    RECONCILE_ERROR = "ReconcileError"
    FAILED_CREATE = "FailedCreate"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    STARTING = "Starting"
    RESTARTING = "Restarting"
    # going
    RUNNING = "Running"
    # ended well
    SUCCEEDED = "Succeeded"
    # ended badly: of an attempt, and of the training when no attempt is left
    CONFIGURATION_ERROR = "ConfigurationError"
    DATA_ERROR = "DataError"
    NO_SPACE = "NoSpace"
    OUT_OF_MEMORY = "OutOfMemory"
    HANG = "Hang"
    KILLED = "Killed"
    ERROR = "Error"
    NODE_LOST = "NodeLost"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    # events
    STAGE_STARTED = "StageStarted"
    STAGE_SUCCEEDED = "StageSucceeded"
    ATTEMPT_FAILED = "AttemptFailed"
    CHECKPOINT_SET_ASIDE = "CheckpointSetAside"
    TAKEN_OVER = "TakenOver"
    WORD_REFUSED = "WordRefused"
    RESULT_PUBLISHED = "ResultPublished"
    # serving
    TRAINING_NOT_FOUND = "TrainingNotFound"
    TRAINING_NOT_FINISHED = "TrainingNotFinished"
    TRAINING_FAILED = "TrainingFailed"
    STAGE_NOT_FOUND = "StageNotFound"
    NOT_A_LANGUAGE_MODEL = "NotALanguageModel"
    FAMILY_NOT_SERVED = "FamilyNotServed"
    MODEL_FOUND = "ModelFound"
    NOT_AN_ADAPTER = "NotAnAdapter"
    ADAPTER_NOT_SUPPORTED = "AdapterNotSupported"
    BASE_DIFFERS = "BaseDiffers"
    ADAPTER_FOUND = "AdapterFound"
    ROLLING_OUT = "RollingOut"
    READY = "Ready"
    NOT_READY = "NotReady"
    SCALED_TO_ZERO = "ScaledToZero"
