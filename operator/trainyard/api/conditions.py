"""Condition types and reasons, as they stand in `status.conditions` and in Events.

`Ready`, `Reconciling` and `Stalled` follow kstatus, so that Flux, Argo CD and `kubectl wait` read a run without being
taught: `Reconciling` and `Stalled` are present only while True, `Ready` is False from the first write on and True only
once the run has succeeded. `Complete`, `Failed` and `Suspended` mean what they mean on a batch/v1 Job.
"""

from enum import StrEnum


class ConditionType(StrEnum):
    """The types; all of polarity positive except Reconciling and Stalled (abnormal-true)."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    GATES_PASSED = "GatesPassed"
    """Whether the result is as good as spec.evaluation.gates ask; there once gates have been judged."""


class State(StrEnum):
    """`status.state`: one word for people. No code decides by it."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    VALIDATING = "Validating"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    """Ended on request, or because there was nothing new to train. The condition is Failed, the reason tells which."""


class Reason(StrEnum):
    """Reasons of conditions, attempts and Events. Stable: scripts and alerts may match on them."""

    # Where a live run stands.
    PENDING = "Pending"
    """Children are being made, or a retry waits for its time."""
    PREPARING = "Preparing"
    VALIDATING = "Validating"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    SUSPENDING = "Suspending"
    """`spec.suspend` is true and the pod is still writing its checkpoint."""
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    """`spec.cost.requireApproval` is true and nobody has approved the run yet."""
    COST_LIMIT = "CostLimitReached"
    """Suspended: the run's GPUs have cost `spec.cost.limit`."""
    SUCCEEDED = "Succeeded"

    # Whether the gates passed.
    PROMOTE = "Promote"
    REJECT = "Reject"
    INCONCLUSIVE = "Inconclusive"

    # Why a pod waits.
    QUEUED = "Queued"
    """The Job waits for its queue (Kueue) to admit it."""
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL = "ImagePull"
    VOLUME = "Volume"
    CONTAINER_CONFIG = "ContainerConfig"
    """A Secret or ConfigMap that the pod names is missing, or the container cannot be created."""
    QUOTA = "QuotaExceeded"
    FORBIDDEN = "PodForbidden"
    """Admission refuses the pod: Pod Security, a missing service account or priority class, a webhook."""
    YIELDING = "Yielding"
    """The training waits for the pods of a Deployment that makes room for it (placement.yieldFrom)."""
    NODE_LOST = "NodeLost"
    """The pod's node has stopped reporting; its volumes are there, so the run waits for it."""
    MISSING_CLAIM = "MissingClaim"
    MISSING_SECRET = "MissingSecret"

    # Why an attempt ended, and whether it counts against backoffLimit.
    DISRUPTED = "Disrupted"
    """Evicted, preempted, drained, deleted, or killed by its node. Not counted."""
    INTERRUPTED = "Interrupted"
    """The step itself asked to be run again after SIGTERM (exit code 75). Not counted."""
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    """Counted: the container was killed at its memory limit."""
    DEVICE_OUT_OF_MEMORY = "DeviceOutOfMemory"
    """Final: nothing is left that would make it fit."""
    OUT_OF_MEMORY_REDUCED = "OutOfMemoryReduced"
    """The device ran out of memory, and the trainer goes on with a smaller demand for the same effective batch. Mostly in
    the same process, then it is an Event alone; where that process could not go on, not counted."""
    INVALID_CONFIG = "InvalidConfig"
    """Final."""
    INVALID_DATA = "InvalidData"
    """Final."""
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    """Counted."""
    STORAGE = "StorageError"
    """Counted."""
    KILLED = "Killed"
    """SIGKILL from outside (exit code 137 and no out-of-memory): counted unless the attempt left a newer checkpoint."""
    ERROR = "Error"
    """Counted."""

    # Why a run failed or cannot go on.
    EXPORT_FAILED = "ExportFailed"
    """An export with onFailure Fail is not tried again. The trained model is on the volume all the same."""
    INVALID_SPEC = "InvalidSpec"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CANCELLED = "Cancelled"
    """The annotation trainyard.dev/cancel was set; the state was saved before the pod ended."""
    UNCHANGED = "Unchanged"
    """The prepared data are those of an earlier run, and the run was made to be skipped then."""
    NAME_CONFLICT = "NameConflict"
    """An object of the name that this run needs exists and belongs to somebody else."""

    # Events without a condition of their own.
    STEP_STARTED = "StepStarted"
    STEP_SUCCEEDED = "StepSucceeded"
    RETRYING = "Retrying"


FINAL_REASONS = frozenset({Reason.INVALID_CONFIG, Reason.INVALID_DATA, Reason.DEVICE_OUT_OF_MEMORY})
"""An attempt that ends so fails the run at once."""
UNCOUNTED_REASONS = frozenset({Reason.DISRUPTED, Reason.INTERRUPTED, Reason.SUSPENDED, Reason.OUT_OF_MEMORY_REDUCED})
"""An attempt that ends so is repeated without counting against backoffLimit."""
