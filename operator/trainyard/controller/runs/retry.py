"""The retry policy, all of it: what an ended attempt costs, whether another follows, and when.

Why an attempt ended is read in `outcome.py`; what that means is said here, one function a question, and nowhere else.

    why it ended                     counts against backoffLimit           the next attempt
    Disrupted                        no                                    soon
    Interrupted                      no                                    soon
    OutOfMemoryReduced               no                                    soon
    Suspended                        no                                    when the run is resumed
    Killed                           unless it left a newer checkpoint     later, or soon if it did not count
    HostOutOfMemory                  yes                                   later
    SourceUnavailable                yes                                   later
    StorageError                     yes                                   later
    Error                            yes                                   later
    InvalidConfig, InvalidData       yes                                   never
    DeviceOutOfMemory                yes                                   never

Soon is at once for an attempt that has moved the training on, and for the first two that have not; then after growing
pauses (DISRUPTION_DELAYS). Later is after a pause that doubles with each counted failure of the run. When more failures
have counted than spec.backoffLimit allows, none follows. A kill that counted is forgiven when the next attempt goes on
from a checkpoint that the killed one had written unnoticed.

A step that the run can do without (`optional`) costs the run nothing: its own failures count against the same limit, and
when it is given up the run goes on without it.
"""

from datetime import datetime, timedelta

from trainyard.api.conditions import FINAL_REASONS, UNCOUNTED_REASONS, Reason
from trainyard.api.progress import FinalRecord
from trainyard.api.run.status import ATTEMPTS_KEPT, Attempt, StepStatus
from trainyard.api.steps import is_train
from trainyard.controller.runs.observed import Policy
from trainyard.controller.runs.views import JobView, PodView, parse_time

DISRUPTION_DELAYS = (0.0, 0.0, 2.0, 5.0, 15.0, 30.0, 60.0)
"""Seconds before an uncounted repetition, by how many attempts in a row made no progress."""
DISRUPTED_PODS = ("Evicted", "NodeLost", "Preempting", "Shutdown")
"""`status.reason` of a pod that its node or the cluster has ended."""

# Why an attempt does not count


def counts(reason: Reason, *, progressed: bool) -> bool:
    """Whether a failure counts against backoffLimit. `progressed`: a checkpoint was committed during the attempt."""
    return reason not in UNCOUNTED_REASONS and not (reason is Reason.KILLED and progressed)


def was_disrupted(job: JobView, pod: PodView | None) -> bool:
    """Whether the cluster has ended the pod: evicted, preempted, drained, or lost with its node."""
    ended_by_cluster = pod is not None and (bool(pod.disruption) or pod.reason in DISRUPTED_PODS)
    return "DisruptionTarget" in job.failure_message or ended_by_cluster


def on_request(reason: Reason, record: FinalRecord | None) -> Reason:
    """The reason of an attempt whose own last word may be that it wants to be run again."""
    wants_again = record is not None and record.outcome == "Resume"
    uncounted = {
        Reason.ERROR: Reason.INTERRUPTED,
        Reason.DEVICE_OUT_OF_MEMORY: Reason.OUT_OF_MEMORY_REDUCED,
    }
    return uncounted.get(reason, reason) if wants_again else reason


def reason_of_deletion(attempt: Attempt, *, told_to_stop: bool) -> Reason:
    """Why the Job of an attempt went before it had finished: the operator deleted it, or somebody else. Neither counts."""
    return Reason.SUSPENDED if attempt.reason == Reason.SUSPENDED or told_to_stop else Reason.DISRUPTED


def is_forgiven(killed: Attempt, *, goes_on_from: int) -> bool:
    """Whether a kill that counted does so no longer, seen from the step that the next attempt goes on from.

    A kill may be quicker than the news of a checkpoint; then it looked like an attempt without progress.
    """
    return bool(killed.counted) and killed.reason == Reason.KILLED and goes_on_from > (killed.first_step or 0)


# Whether it was the last


def is_final(attempt: Attempt) -> bool:
    """Whether the attempt's failure rules out another one."""
    return attempt.state == "Failed" and attempt.reason in FINAL_REASONS


def is_one_too_many(attempt: Attempt, *, counted: int, limit: int) -> bool:
    """Whether with this failure more have counted than may."""
    return attempt.state == "Failed" and bool(attempt.counted) and counted > limit


def is_given_up(step: StepStatus, *, limit: int) -> bool:
    """Whether a step that the run can do without is tried no more. No more failures are known than attempts are kept."""
    last = step.attempts[-1] if step.attempts else None
    limit = min(limit, ATTEMPTS_KEPT - 1)
    return last is not None and (is_final(last) or is_one_too_many(last, counted=failures(step), limit=limit))


def failures(step: StepStatus) -> int:
    """How many of the step's own attempts have counted, of those that are known."""
    return sum(bool(attempt.counted) for attempt in step.attempts or ())


# When the next one begins


def retry_at(step: StepStatus, *, counted: int, policy: Policy) -> datetime | None:
    """When the next attempt may begin; None for at once. `counted`: failures of the run that had counted at its end."""
    last = step.attempts[-1] if step.attempts else None
    if last is None or last.state not in ("Failed", "Stopped") or last.reason == Reason.SUSPENDED:
        return None
    ended = parse_time(last.completion_time)
    if ended is None:
        return None
    if last.counted:
        delay = min(policy.retry_base_seconds * 2 ** (max(counted, 1) - 1), policy.retry_cap_seconds)
    else:
        delay = DISRUPTION_DELAYS[min(_fruitless(step), len(DISRUPTION_DELAYS) - 1)]
    return ended + timedelta(seconds=delay) if delay else None


def _fruitless(step: StepStatus) -> int:
    """How many attempts in a row ended without having moved the training on."""
    count = 0
    for attempt in reversed(step.attempts or ()):
        if is_train(step.name) and (attempt.last_step or 0) > (attempt.first_step or 0):
            break
        count += 1
    return count
