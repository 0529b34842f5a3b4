"""The next start: by a person, by the clock, by a trigger, in this order. Pure."""

import json
from datetime import datetime, timedelta

from trainyard.api.schedule.status import CLOCK, RUN_NOW, Firing, ScheduleReason
from trainyard.api.schedule.timetable import Timetable
from trainyard.api.schedule.trainingschedule import OVERRIDES_ANNOTATION, RUN_NOW_ANNOTATION, VARIANTS_ANNOTATION
from trainyard.api.schedule.validity import faults
from trainyard.controller.clock import rfc3339
from trainyard.controller.runs.views import parse_time
from trainyard.controller.schedules import clockwork
from trainyard.controller.schedules.concurrency import in_the_way, make_way
from trainyard.controller.schedules.draft import Draft
from trainyard.controller.schedules.observed import Observed
from trainyard.controller.schedules.triggers.judge import Judgement, fired


def open_next(draft: Draft, timetable: Timetable | None, verdicts: dict[str, Judgement]) -> bool:
    """Put the next start into `firing`, where there is one and nothing is in its way."""
    if _open_run_now(draft):
        return True
    if draft.seen.schedule.spec.suspend:
        return False
    return _open_slot(draft, timetable) or _open_trigger(draft, verdicts)


def _open_run_now(draft: Draft) -> bool:
    annotations = draft.seen.schedule.annotations
    wanted = annotations.get(RUN_NOW_ANNOTATION, "")[:1024]
    if not wanted or wanted == draft.status.last_run_now:
        return False
    overrides = annotations.get(OVERRIDES_ANNOTATION) or None
    variants = [v.strip() for v in annotations.get(VARIANTS_ANNOTATION, "").split(",") if v.strip()] or None
    fault = _bad_overrides(draft.seen, overrides) if overrides is not None else None
    if fault := fault or (_unknown_variant(draft.seen, variants) if variants else None):
        draft.set(last_run_now=wanted)
        draft.note("Warning", ScheduleReason.INVALID_RUN_NOW, fault)
        return False
    if obstacle := in_the_way(draft):
        draft.waiting = f"run-now waits: {obstacle}"
        return False
    _begin(
        draft,
        Firing(
            time=_unused_second(draft),
            started_by=RUN_NOW,
            force=wanted.startswith("force") or None,
            overrides=overrides,
            variants=variants,
        ),
    )
    draft.set(last_run_now=wanted)
    return True


def _unknown_variant(seen: Observed, variants: list[str]) -> str | None:
    there = [v.name for v in seen.schedule.spec.variants]
    unknown = next((v for v in variants if v not in there), None)
    if unknown is None:
        return None
    known = f"it has {', '.join(there)}" if there else "it has none"
    return f"annotation {VARIANTS_ANNOTATION}: the schedule has no variant {unknown}; {known}; nothing was started"


def _bad_overrides(seen: Observed, overrides: str) -> str | None:
    where = f"annotation {OVERRIDES_ANNOTATION}"
    try:
        patch = json.loads(overrides)
    except json.JSONDecodeError as error:
        return f"{where} is not JSON: {error}; nothing was started"
    if not isinstance(patch, dict) or len(overrides) > 16384:
        return f"{where} has to be a JSON mapping of at most 16384 characters; nothing was started"
    wrong = faults(seen.schedule, overrides=patch)
    return f"{where}: {wrong[0]}; nothing was started" if wrong else None


def _open_slot(draft: Draft, timetable: Timetable | None) -> bool:
    seen, spec = draft.seen, draft.seen.schedule.spec
    handled = parse_time(draft.status.handled_until)
    if timetable is None or handled is None:
        return False
    due = clockwork.due(timetable, handled, seen.now)
    if due is None:
        return False
    too_early = clockwork.too_early(spec, draft.status, seen.now)
    obstacle = in_the_way(draft) or (f"minIntervalSeconds is {spec.min_interval_seconds}" if too_early else None)
    late = (seen.now - due.slot).total_seconds() - spec.starting_deadline_seconds
    if due.earlier:
        _give_up(draft, due.earlier, obstacle, due.first)
    draft.set(handled_until=rfc3339(due.slot - timedelta(seconds=1)) if due.earlier else draft.status.handled_until)
    if late > 0 and spec.catch_up == "Skip":
        _give_up(draft, 1, obstacle, due.slot)
        draft.set(handled_until=rfc3339(due.slot))
        return False
    if obstacle:
        until = rfc3339(due.slot + timedelta(seconds=spec.starting_deadline_seconds))
        limit = f"; it is skipped after {until}" if spec.catch_up == "Skip" else ""
        draft.waiting = f"the start of {rfc3339(due.slot)} waits: {obstacle}{limit}"
        if spec.catch_up == "Skip":
            draft.wakes.append(-late + 0.001)
        if too_early:
            draft.wakes.append(too_early)
        return False
    window = draft.status.last_schedule_time
    _begin(draft, Firing(time=rfc3339(due.slot), started_by=CLOCK, window_start=window))
    draft.set(handled_until=rfc3339(due.slot), last_schedule_time=rfc3339(due.slot), last_start_time=rfc3339(seen.now))
    return True


def _give_up(draft: Draft, slots: int, obstacle: str | None, slot: datetime) -> None:
    which = f"the start of {rfc3339(slot)}" if slots == 1 else f"{slots} starts from {rfc3339(slot)} on"
    if obstacle:
        draft.count(skipped=slots)
        draft.note("Normal", ScheduleReason.SKIPPED, f"skipped {which}: {obstacle}")
    else:
        draft.count(missed=slots)
        draft.note("Warning", ScheduleReason.MISSED, f"missed {which}: nobody was there to make it in time")


def _open_trigger(draft: Draft, verdicts: dict[str, Judgement]) -> bool:
    seen, spec = draft.seen, draft.seen.schedule.spec
    for name, verdict in verdicts.items():
        if not verdict.ready:
            continue
        too_early = clockwork.too_early(spec, draft.status, seen.now)
        obstacle = in_the_way(draft) or (f"minIntervalSeconds is {spec.min_interval_seconds}" if too_early else None)
        if obstacle:
            draft.waiting = draft.waiting or f"the start by trigger {name} waits: {obstacle}"
            if too_early:
                draft.wakes.append(too_early)
            return False
        _begin(draft, Firing(time=_unused_second(draft), window_start=verdict.status.last_fire_time, started_by=name))
        draft.set(last_start_time=rfc3339(seen.now))
        draft.note("Normal", ScheduleReason.TRIGGER_FIRED, f"{name}: {verdict.status.observed}")
        return True
    return False


def _begin(draft: Draft, firing: Firing) -> None:
    make_way(draft)
    # A start answers everything that has changed before it: no second run for what the first one has seen.
    triggers = [
        fired(t, draft.seen.looks.get(t.name), draft.seen.now) if t.pending else t for t in draft.status.triggers or ()
    ]
    draft.set(firing=firing, triggers=triggers or None)


def _unused_second(draft: Draft) -> str:
    """Now; or a second later than the last one, because starts of one second would share their names."""
    now, last = draft.seen.now.replace(microsecond=0), parse_time(draft.status.last_moment)
    moment = rfc3339(now if last is None else max(now, last + timedelta(seconds=1)))
    draft.set(last_moment=moment)
    return moment
