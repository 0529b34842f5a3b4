"""Events, derived from what changed between two statuses.

Because they are a function of the written status, a restart of the operator repeats none of them, and an Event never
speaks of something that the status does not show. Progress makes no Events.
"""

from collections.abc import Iterator

from trainyard.api.conditions import ConditionType, Reason, State
from trainyard.api.progress import REDUCTIONS, REDUCTIONS_SEPARATOR
from trainyard.api.run.status import Attempt, TrainingRunStatus
from trainyard.controller.loop.subjects import Notice


def notices(old: TrainingRunStatus, new: TrainingRunStatus) -> Iterator[Notice]:
    """What is worth an Event."""
    yield from _attempts(old, new)
    yield from _reductions(old, new)
    yield from _judged(old, new)
    if (old.state, _ready_reason(old)) == (new.state, _ready_reason(new)):
        return
    message = new.message or ""
    reason = _ready_reason(new)
    match new.state:
        case State.SUCCEEDED:
            yield Notice("Normal", Reason.SUCCEEDED, message)
        case State.FAILED:
            yield Notice("Warning", reason or Reason.ERROR, message)
        case State.CANCELLED:
            yield Notice("Normal", reason or Reason.CANCELLED, message)
        case State.SUSPENDED:
            kind = "Warning" if reason is Reason.COST_LIMIT else "Normal"
            yield Notice(kind, reason or Reason.SUSPENDED, message)
        case _ if reason is not None and reason in _WORTH_A_WARNING:
            yield Notice("Warning", reason, message)
        case State.PENDING if reason in (Reason.RETRYING, Reason.WAITING_FOR_APPROVAL):
            yield Notice("Normal", reason, message)
        case _ if old.state == State.SUSPENDED:
            yield Notice("Normal", Reason.RESUMED, "the run goes on")


def _judged(old: TrainingRunStatus, new: TrainingRunStatus) -> Iterator[Notice]:
    """The verdict of the gates, when it is known."""
    before, now = (
        next((c for c in s.conditions or () if c.type == ConditionType.GATES_PASSED), None) for s in (old, new)
    )
    if now is not None and (before is None or before.reason != now.reason):
        yield Notice("Normal" if now.status == "True" else "Warning", Reason(now.reason), now.message)


_WORTH_A_WARNING = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_PULL,
        Reason.VOLUME,
        Reason.CONTAINER_CONFIG,
        Reason.QUOTA,
        Reason.FORBIDDEN,
        Reason.NODE_LOST,
        Reason.MISSING_CLAIM,
        Reason.MISSING_SECRET,
        Reason.NAME_CONFLICT,
        Reason.INVALID_SPEC,
    }
)


def _ready_reason(status: TrainingRunStatus) -> Reason | None:
    found = next((c.reason for c in status.conditions or () if c.type == "Ready"), None)
    return Reason(found) if found in set(Reason) else None


def _attempts(old: TrainingRunStatus, new: TrainingRunStatus) -> Iterator[Notice]:
    known = {(s.name, a.number): a for s in old.steps or () for a in s.attempts or ()}
    for step in new.steps or ():
        for attempt in step.attempts or ():
            before = known.get((step.name, attempt.number))
            again = f" (attempt {attempt.number})" if attempt.number > 1 else ""
            if attempt.node and not (before and before.node):
                yield Notice("Normal", Reason.STEP_STARTED, f"{step.name}{again} runs on {attempt.node}")
            if attempt.state == "Succeeded" and not (before and before.state == "Succeeded"):
                yield Notice("Normal", Reason.STEP_SUCCEEDED, f"{step.name}{again} succeeded")
            if attempt.state in ("Failed", "Stopped") and (before is None or before.state == "Running"):
                yield _ended(step.name, again, attempt)


def _ended(step: str, again: str, attempt: Attempt) -> Notice:
    reason = Reason(attempt.reason) if attempt.reason else Reason.ERROR
    kind = "Warning" if attempt.counted else "Normal"
    return Notice(kind, reason, f"{step}{again} ended: {attempt.message or reason.value}")


def _reductions(old: TrainingRunStatus, new: TrainingRunStatus) -> Iterator[Notice]:
    """What the trainer has given up to fit into its device's memory, one Event each."""
    known, now = (
        [r for r in (s.effective or {}).get(REDUCTIONS, "").split(REDUCTIONS_SEPARATOR) if r] for s in (old, new)
    )
    for reduction in now[len(known) :] if now[: len(known)] == known else now:
        yield Notice("Warning", Reason.OUT_OF_MEMORY_REDUCED, f"the device ran out of memory: {reduction}")
