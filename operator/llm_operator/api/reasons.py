"""Every condition type and every reason that a status, an attempt or an event can show."""

from __future__ import annotations

from enum import StrEnum


class TrainingCondition(StrEnum):
    """Conditions of an LLMTraining; Succeeded and Failed exclude each other and hold until the spec changes.

    Published is there with spec.publish, and is of no weight for the others.
    """

    ACCEPTED = "Accepted"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    PUBLISHED = "Published"


class ServingCondition(StrEnum):
    """Conditions of an LLMServing; Ready sums up."""

    MODEL_AVAILABLE = "ModelAvailable"
    ADAPTERS_AVAILABLE = "AdaptersAvailable"
    PROGRESSING = "Progressing"
    READY = "Ready"


class AppCondition(StrEnum):
    """Conditions of an LLMApp; Ready sums up."""

    ACCEPTED = "Accepted"
    MODEL_RESOLVED = "ModelResolved"
    KNOWLEDGE_READY = "KnowledgeReady"
    EVALUATED = "Evaluated"
    AVAILABLE = "Available"
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
    CLAIM_ACCESS_MODE = "PersistentVolumeClaimAccessMode"
    APPLY_REFUSED = "ApplyRefused"
    DELETE_REFUSED = "DeleteRefused"
    RECONCILE_ERROR = "ReconcileError"
    FAILED_CREATE = "FailedCreate"
    UNSCHEDULABLE = "Unschedulable"
    SCHEDULING_GATED = "SchedulingGated"
    FAILED_MOUNT = "FailedMount"
    INIT_CONTAINER_FAILED = "InitContainerFailed"
    TERMINATING = "Terminating"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    STARTING = "Starting"
    RESTARTING = "Restarting"
    TAKEN_UP = "TakenUp"
    NODES_CHANGED = "NodesChanged"
    # going
    RUNNING = "Running"
    # ended well
    SUCCEEDED = "Succeeded"
    # ended badly: of an attempt, and of the training when no attempt is left
    CONFIGURATION_ERROR = "ConfigurationError"
    DATA_ERROR = "DataError"
    DIVERGED = "Diverged"
    EVALUATION_FAILED = "EvaluationFailed"
    NO_SPACE = "NoSpace"
    STORAGE_UNREADABLE = "StorageUnreadable"
    OUT_OF_MEMORY = "OutOfMemory"
    HANG = "Hang"
    KILLED = "Killed"
    ERROR = "Error"
    NODE_LOST = "NodeLost"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    PEER_LOST = "PeerLost"
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    # events
    NOTHING_TO_RUN = "NothingToRun"
    STAGE_STARTED = "StageStarted"
    STAGE_SUCCEEDED = "StageSucceeded"
    ATTEMPT_FAILED = "AttemptFailed"
    CHECKPOINT_SET_ASIDE = "CheckpointSetAside"
    CHECKPOINT_IN_LINE = "CheckpointInLine"
    REPORT_NOT_WRITTEN = "ReportNotWritten"
    TRACKER_FAILED = "TrackerFailed"
    PROCESSES_CHANGED = "ProcessesChanged"
    SKIP = "Skip"
    ROLL_BACK = "RollBack"
    REDUCE_RATE = "ReduceRate"
    EARLY_STOP = "EarlyStop"
    TUNED = "Tuned"
    LAYERS_COMPILED = "LayersCompiled"
    TAKEN_OVER = "TakenOver"
    WORD_REFUSED = "WordRefused"
    RESULT_PUBLISHED = "ResultPublished"
    PUBLISHING = "Publishing"
    PUBLISHED = "Published"
    PUBLISH_FAILED = "PublishFailed"
    RESULT_BLOCKED = "ResultBlocked"
    THRESHOLD_MISSED = "ThresholdMissed"
    # serving
    FETCHING = "Fetching"
    FETCHED = "Fetched"
    FETCH_FAILED = "FetchFailed"
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
    ROLLED_OUT = "RolledOut"
    RESULT_WAITS = "ResultWaits"
    REPLACING_PODS = "ReplacingPods"
    ROLLOUT_STUCK = "RolloutStuck"
    PAUSED = "Paused"
    DRIFT_MENDED = "DriftMended"
    READY = "Ready"
    NOT_READY = "NotReady"
    SCALING_TO_ZERO = "ScalingToZero"
    SCALED_TO_ZERO = "ScaledToZero"
    # apps
    SERVING_NOT_FOUND = "ServingNotFound"
    SERVING_NOT_READY = "ServingNotReady"
    ADAPTER_NOT_FOUND = "AdapterNotFound"
    ADAPTER_NOT_SERVED = "AdapterNotServed"
    NOT_A_CHAT_MODEL = "NotAChatModel"
    NOT_AN_EMBEDDING_MODEL = "NotAnEmbeddingModel"
    PROMPT_TOO_LONG = "PromptTooLong"
    TOOL_DOCUMENT_REFUSED = "ToolDocumentRefused"
    MODEL_RESOLVED = "ModelResolved"
    SOURCE_NOT_FOUND = "SourceNotFound"
    INDEXING = "Indexing"
    INDEXED = "Indexed"
    INDEX_FAILED = "IndexFailed"
    KNOWLEDGE_OUTDATED = "KnowledgeOutdated"
    EVALUATING = "Evaluating"
    EVALUATED = "Evaluated"
    EVALUATION_ERROR = "EvaluationError"
    HELD_BACK = "HeldBack"


LEFT = (Reason.SUSPENDED, Reason.NODES_CHANGED)
"""Of attempts that the spec has ended: their pods save, and the next attempt waits for their end."""
