"""Which alerts a run owes: a function of its status. Pure.

Nothing is remembered of what has happened. An alert is due when the status shows what it is about, and is owed to a receiver
until `status.alerts` says that he has it. So an operator that is killed anywhere owes the same alerts after its start, under the
same keys. The only one that is not owed any more when its time has passed is `timeout_warning`: after the end there is nothing
to warn of.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from trainyard.api.conditions import Reason, State
from trainyard.api.progress import REDUCTIONS, REDUCTIONS_SEPARATOR
from trainyard.api.run.notifications import AlertType, Notification
from trainyard.api.run.status import AlertStatus, Attempt, TrainingRunStatus
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.api.steps import is_train
from trainyard.controller.runs.status import is_finished
from trainyard.controller.runs.views import parse_time

OUT_OF_MEMORY_LIMIT = 10
"""Alerts about memory, of one run."""
WARNING_SHARE = 0.1
WARNING_SECONDS = 600.0
"""Before a deadline, whichever is less."""
_ENDS: dict[str, AlertType] = {
    State.SUCCEEDED: "job_completed",
    State.FAILED: "job_failed",
    State.CANCELLED: "job_cancelled",
}


@dataclass(frozen=True)
class Edge:
    """Something that happens to a run once."""

    name: str
    """Unique in the run; with the run's uid it is the key by which receivers know an alert again."""
    type: AlertType
    message: str = ""


@dataclass(frozen=True)
class Owed:
    """An alert that a receiver has not had yet."""

    edge: Edge
    notification: Notification

    @property
    def name(self) -> str:
        """In status.alerts."""
        return f"{self.edge.name}/{self.notification.name}"


def owed(spec: TrainingRunSpec, status: TrainingRunStatus, *, now: datetime) -> list[Owed]:
    """What is still to be told, in the order in which it happened."""
    if not spec.notifications:
        return []
    known = {alert.name for alert in status.alerts or ()}
    told_memory = {name.partition("/")[0] for name in known if name.startswith("gpu_oom")}
    found = []
    for edge in _edges(spec, status, now):
        if edge.type == "gpu_oom" and edge.name not in told_memory:
            if len(told_memory) >= OUT_OF_MEMORY_LIMIT:
                continue
            told_memory.add(edge.name)
        for notification in spec.notifications:
            if notification.wants(edge.type):
                found.append(Owed(edge, notification))
    return [one for one in found if one.name not in known]


def with_told(status: TrainingRunStatus, told: list[AlertStatus]) -> TrainingRunStatus:
    """The status with what the receivers have been told since."""
    known = {alert.name for alert in status.alerts or ()}
    fresh = [alert for alert in told if alert.name not in known]
    return status.model_copy(update={"alerts": [*(status.alerts or ()), *fresh]}) if fresh else status


def warning_in(spec: TrainingRunSpec, status: TrainingRunStatus, *, now: datetime) -> float | None:
    """Seconds until `timeout_warning` is due; None where it is not going to be, or is already."""
    if not spec.notifications or (left := _seconds_left(spec, status, now)) is None:
        return None
    before = left - _margin(spec)
    return before if before > 0 else None


def _edges(spec: TrainingRunSpec, status: TrainingRunStatus, now: datetime) -> Iterator[Edge]:
    attempts = list(_attempts(status))
    trains = any(is_train(step) for step, _ in attempts) or any(is_train(step) for step in spec.steps())
    if any(attempt.node and (is_train(step) or not trains) for step, attempt in attempts):
        yield Edge("job_started", "job_started")
    yield from _out_of_memory(status, attempts)
    left = _seconds_left(spec, status, now)
    if left is not None and left <= _margin(spec):
        text = f"{max(0, round(left))} s are left of spec.activeDeadlineSeconds ({spec.active_deadline_seconds}), then the run fails"
        yield Edge("timeout_warning", "timeout_warning", text)
    if is_finished(status) and (end := _ENDS.get(status.state or "")):
        yield Edge(end, end, status.message or "")


def _attempts(status: TrainingRunStatus) -> Iterator[tuple[str, Attempt]]:
    for step in status.steps or ():
        for attempt in step.attempts or ():
            yield step.name, attempt


def _out_of_memory(status: TrainingRunStatus, attempts: list[tuple[str, Attempt]]) -> Iterator[Edge]:
    for reduction in ((status.effective or {}).get(REDUCTIONS) or "").split(REDUCTIONS_SEPARATOR):
        if reduction:
            digest = hashlib.sha256(reduction.encode()).hexdigest()[:10]
            yield Edge(f"gpu_oom-{digest}", "gpu_oom", f"the device ran out of memory: {reduction}")
    for step, attempt in attempts:
        if attempt.reason == Reason.DEVICE_OUT_OF_MEMORY:
            yield Edge(f"gpu_oom-{step[:40]}-{attempt.number}", "gpu_oom", attempt.message or attempt.reason or "")


def _seconds_left(spec: TrainingRunSpec, status: TrainingRunStatus, now: datetime) -> float | None:
    """Until the deadline of a run whose pods are wanted."""
    since = parse_time(status.active_since)
    if spec.active_deadline_seconds is None or since is None or is_finished(status):
        return None
    return spec.active_deadline_seconds - (status.active_seconds or 0) - (now - since).total_seconds()


def _margin(spec: TrainingRunSpec) -> float:
    return min(WARNING_SECONDS, WARNING_SHARE * (spec.active_deadline_seconds or 0))
