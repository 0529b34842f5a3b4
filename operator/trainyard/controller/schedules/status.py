"""Conditions of a schedule, in the vocabularies of kstatus and of people.

A schedule is Ready while its clock and triggers work, whether or not a run is under way: what a run does is told by the
run. So a GitOps tool calls it healthy as soon as it has been read, and failed when it can never start anything.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from trainyard.api.addresses import told as harmless
from trainyard.api.conditions import ConditionType
from trainyard.api.run.status import Condition
from trainyard.api.schedule.status import ScheduleReason, ScheduleState, TrainingScheduleStatus
from trainyard.controller.clock import rfc3339


@dataclass(frozen=True)
class Standing:
    """How the schedule stands now."""

    state: ScheduleState
    reason: ScheduleReason
    message: str


def is_suspended(status: TrainingScheduleStatus) -> bool:
    """Whether the last look found it suspended."""
    return any(c.type == ConditionType.SUSPENDED and c.status == "True" for c in status.conditions or ())


def stand(
    status: TrainingScheduleStatus, standing: Standing, *, suspended: bool, generation: int, now: datetime
) -> TrainingScheduleStatus:
    """The status with the standing written into it."""
    standing = replace(standing, message=harmless(standing.message))
    before = {c.type: c for c in status.conditions or ()}
    valid = standing.state is not ScheduleState.INVALID
    ready = (ScheduleReason.SUSPENDED if suspended else ScheduleReason.SCHEDULED) if valid else standing.reason
    told = "suspended: only run-now starts anything" if suspended else "clock and triggers are at work"
    wanted: list[tuple[ConditionType, bool, ScheduleReason, str]] = [
        (ConditionType.READY, valid, ready, told if valid else standing.message)
    ]
    if not valid:
        wanted.append((ConditionType.STALLED, True, standing.reason, standing.message))
    if suspended:
        wanted.append((ConditionType.SUSPENDED, True, ScheduleReason.SUSPENDED, told))
    elif ConditionType.SUSPENDED in before:
        wanted.append((ConditionType.SUSPENDED, False, ScheduleReason.RESUMED, "clock and triggers go on from here"))
    conditions = []
    for kind, value, reason, message in wanted:
        text, old = ("True" if value else "False"), before.get(kind)
        since = old.last_transition_time if old is not None and old.status == text else rfc3339(now)
        conditions.append(
            Condition(
                type=kind.value,
                status="True" if value else "False",
                reason=reason.value,
                message=message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return status.model_copy(
        update={
            "observed_generation": generation,
            "state": standing.state.value,
            "message": standing.message,
            "conditions": conditions,
        }
    )
