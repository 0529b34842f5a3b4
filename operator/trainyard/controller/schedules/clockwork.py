"""The schedule's own clock: which slots are due, and when the next one comes. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.api.schedule.status import TrainingScheduleStatus
from trainyard.api.schedule.timetable import (
    DEFAULT_ZONE,
    Interval,
    Timetable,
    count_slots,
    newest_slot,
    next_slot,
    parse_cron,
)
from trainyard.api.schedule.trainingschedule import TrainingScheduleSpec
from trainyard.controller.runs.views import parse_time


@dataclass(frozen=True)
class Due:
    """Slots that have come and that nobody has dealt with."""

    slot: datetime
    """The newest."""
    first: datetime
    earlier: int
    """How many came before the newest; they are never started."""


def timetable(spec: TrainingScheduleSpec, status: TrainingScheduleStatus) -> Timetable | None:
    """The slots of this schedule; None for one that has only triggers. Raises `InvalidTimetable`."""
    if spec.schedule is not None:
        return parse_cron(spec.schedule, spec.time_zone or DEFAULT_ZONE)
    base = parse_time(status.interval_base)
    if spec.interval_seconds is not None and base is not None:
        return Interval(base, spec.interval_seconds)
    return None


def due(timetable: Timetable, handled: datetime, now: datetime) -> Due | None:
    """What has come since `handled`."""
    newest = newest_slot(timetable, handled, now)
    if newest is None:
        return None
    first = next_slot(timetable, handled) or newest
    return Due(newest, first, count_slots(timetable, handled, newest) - 1)


def following(timetable: Timetable | None, status: TrainingScheduleStatus, now: datetime) -> datetime | None:
    """The next slot that has not come yet."""
    return None if timetable is None else next_slot(timetable, now)


def too_early(spec: TrainingScheduleSpec, status: TrainingScheduleStatus, now: datetime) -> float:
    """Seconds until minIntervalSeconds lets another start through; 0 when it does now."""
    last = parse_time(status.last_start_time)
    if spec.min_interval_seconds is None or last is None:
        return 0.0
    return max(0.0, (last + timedelta(seconds=spec.min_interval_seconds) - now).total_seconds())


def summary(spec: TrainingScheduleSpec) -> str:
    """The column SCHEDULE: what starts runs, in a few words."""
    parts = []
    if spec.schedule is not None:
        parts.append(" ".join(spec.schedule.split()))
    if spec.interval_seconds is not None:
        parts.append(f"every {_span(spec.interval_seconds)}")
    if spec.triggers:
        parts.append(f"{len(spec.triggers)} trigger{'s' if len(spec.triggers) > 1 else ''}")
    return " + ".join(parts)[:256]


def _span(seconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
