"""Whether what a source answered is a reason to start a run. Pure.

The status carries what was there at the last start (`baseline`), so a restart of the operator sees nothing new in it, a
source that is down changes nothing, and one change starts one run however often it is looked at.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.api.addresses import told as harmless
from trainyard.api.schedule.children import digest
from trainyard.api.schedule.status import TriggerStatus
from trainyard.api.schedule.triggers import Trigger
from trainyard.controller.clock import rfc3339
from trainyard.controller.runs.views import parse_time
from trainyard.controller.schedules.observed import Look, Reading
from trainyard.controller.schedules.triggers.sketch import changed_share

OBSERVED_LIMIT = 512


@dataclass(frozen=True)
class Judgement:
    """A trigger after a look at it."""

    status: TriggerStatus
    ready: bool
    """It has something to start a run for, and may do so now."""
    wake_after: float | None = None
    """Seconds until time alone changes that."""


def trigger_digest(trigger: Trigger) -> str:
    """Which source is watched, and for what; how often is not part of it."""
    return digest(trigger.model_dump(mode="json", exclude={"name", "poll_seconds", "cooldown_seconds"}))


def judge(trigger: Trigger, before: TriggerStatus | None, look: Look | None, now: datetime) -> Judgement:
    """Bring a trigger's status up to date."""
    made_of = trigger_digest(trigger)
    if before is None or before.spec_digest != made_of:
        # Another source than before begins anew; only its cooldown goes on.
        before = TriggerStatus(
            name=trigger.name, spec_digest=made_of, last_fire_time=before.last_fire_time if before else None
        )
    if look is None:
        return Judgement(before, ready=False)
    if look.error is not None:
        # What held before may not hold any more: nothing starts, and how long it has held is counted anew.
        lapsed = {} if before.pending else {"holds_since": None}
        failing = {"failing": True, "message": harmless(look.error)[:1000], **lapsed}
        return Judgement(before.model_copy(update=failing), ready=False)
    status = before.model_copy(update={"failing": None})
    if look.reading is None:
        return Judgement(status, ready=False)
    status = _compare(trigger, status, look.reading)
    left = (
        _still_to_hold(trigger, status, now) if look.reading.holds and status.baseline != look.reading.token else None
    )
    if left is not None:
        status = status.model_copy(update={"pending": True if left <= 0 else None})
    if status.pending:
        left = _cooldown_left(trigger, status, now)
    told = "; ".join(filter(None, (_message(status, look.reading), look.note)))
    status = status.model_copy(update={"message": harmless(told)[:1000]})
    waits = left is not None and left > 0
    return Judgement(status, ready=bool(status.pending) and not waits, wake_after=left if waits else None)


def fired(status: TriggerStatus, look: Look | None, now: datetime) -> TriggerStatus:
    """The trigger has started a run for what it saw."""
    token = look.reading.token if look and look.reading else status.baseline
    return status.model_copy(update={"pending": None, "baseline": token, "last_fire_time": rfc3339(now)})


def _compare(trigger: Trigger, status: TriggerStatus, reading: Reading) -> TriggerStatus:
    updates: dict[str, object] = {
        "last_check_time": rfc3339(reading.at),
        "observed": reading.observed[:OBSERVED_LIMIT],
    }
    if reading.holds is None:
        if status.baseline is None:
            updates["baseline"] = reading.token
        else:
            updates["pending"] = _changed_enough(trigger, status.baseline, reading.token) or None
    elif not reading.holds:
        updates |= {"holds_since": None, "pending": None}
        if trigger.prometheus is not None:
            updates["baseline"] = None  # the next time that it holds is another occasion
    elif status.holds_since is None:
        updates["holds_since"] = rfc3339(reading.at)
    elif status.baseline == reading.token:
        updates["pending"] = None
    return status.model_copy(update=updates)


def _changed_enough(trigger: Trigger, before: str, after: str) -> bool:
    if before == after:
        return False
    if trigger.dataset is None or trigger.dataset.minimum_change <= 0:
        return True
    return changed_share(before, after) >= trigger.dataset.minimum_change


def _still_to_hold(trigger: Trigger, status: TriggerStatus, now: datetime) -> float:
    since = parse_time(status.holds_since)
    wanted = trigger.prometheus.for_seconds if trigger.prometheus else 0
    return 0.0 if since is None else (since + timedelta(seconds=wanted) - now).total_seconds()


def _cooldown_left(trigger: Trigger, status: TriggerStatus, now: datetime) -> float:
    last = parse_time(status.last_fire_time)
    return 0.0 if last is None else (last + timedelta(seconds=trigger.cooldown_seconds) - now).total_seconds()


def _message(status: TriggerStatus, reading: Reading) -> str:
    if status.pending:
        return f"a run is wanted for {reading.observed}"
    if reading.holds and status.baseline == reading.token:
        return f"a run has been started for {reading.observed}"
    return f"nothing to do: {reading.observed}"
