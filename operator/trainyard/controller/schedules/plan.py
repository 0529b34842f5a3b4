"""The decision: from what is there to what is to be done. Pure.

A start goes through two writes. The first puts `firing` into the status (and with it the slot, the annotation or the
trigger's observation is used up); only then its runs are made, one action each; the second write says that they are
there. An operator that ends in between finds `firing` at its next look and goes on under the same names, so a start is
neither lost nor doubled, and no policy mistakes a start's own runs for somebody in its way.
"""

from datetime import datetime

from trainyard.api.schedule.children import child_name, child_spec, digest
from trainyard.api.schedule.status import RUN_NOW, ActiveRun, Firing, LastRun, ScheduleReason, ScheduleState
from trainyard.api.schedule.timetable import Timetable
from trainyard.api.schedule.trainingschedule import Variant
from trainyard.api.schedule.validity import faults
from trainyard.controller.clock import rfc3339
from trainyard.controller.schedules import clockwork, history
from trainyard.controller.schedules.children import build_child
from trainyard.controller.schedules.concurrency import clear
from trainyard.controller.schedules.draft import Create, Delete, Draft, Plan
from trainyard.controller.schedules.ledger import book, look_at_triggers, wind_up
from trainyard.controller.schedules.observed import Observed
from trainyard.controller.schedules.opening import open_next
from trainyard.controller.schedules.status import Standing, stand

QUICK_LOOK_SECONDS = 0.5
"""Something was noticed that the next look has to book."""


def plan(seen: Observed, *, may_open: bool = True) -> Plan:
    """Decide. With `may_open` false, go on with a start that has just been written down, and begin none."""
    draft = Draft(seen, seen.status)
    book(draft)
    wrong = faults(seen.schedule)
    if wrong:
        return _refuse(draft, wrong)
    timetable = clockwork.timetable(seen.schedule.spec, wind_up(draft))
    verdicts, polls = look_at_triggers(draft)
    if may_open and open_next(draft, timetable, verdicts):
        return _finish(draft, timetable, polls, write_first=True)
    _go_on(draft)
    _tidy(draft)
    return _finish(draft, timetable, polls)


# A start goes on


def _go_on(draft: Draft) -> None:
    """Make the runs of the start that is under way, as far as policies allow."""
    seen, spec, firing = draft.seen, draft.seen.schedule.spec, draft.status.firing
    if firing is None:
        return
    if spec.suspend and firing.started_by != RUN_NOW:
        return
    variants = draft.variants()
    names = [child_name(seen.schedule.name, v.name if v else None, firing) for v in variants]
    if not clear(draft, firing, names):
        return
    index = firing.next_variant
    while index < len(variants):
        previous = seen.child(names[index - 1]) if index else None
        if spec.variant_policy == "Sequential" and index:
            just_made = index > firing.next_variant and names[index - 1] not in seen.refused
            if just_made or (previous is not None and not previous.finished):
                break
        _make(draft, variants[index], names[index], firing)
        index += 1
    done = index >= len(variants)
    draft.set(firing=None if done else firing.model_copy(update={"next_variant": index}))


def _make(draft: Draft, variant: Variant | None, name: str, firing: Firing) -> None:
    seen = draft.seen
    if name in seen.refused:
        draft.count(skipped=1)
        draft.note("Warning", ScheduleReason.REFUSED, f"{name}: {seen.refused[name]}")
        return
    there = seen.child(name)
    if there is None:
        body = build_child(
            seen.schedule, variant, firing, now=seen.now, known_dataset=_known_dataset(draft, variant, firing)
        )
        draft.actions.append(Create(body))
    entry = ActiveRun(name=name, uid=there.uid if there else None, variant=variant.name if variant else None)
    draft.set(
        active=[*(draft.status.active or ()), entry],
        last_run=LastRun(name=name, started_by=firing.started_by, state=(there.state if there else None) or "Pending"),
    )
    draft.count(created=1)
    draft.note("Normal", ScheduleReason.RUN_CREATED, f"made {name}, started by {firing.started_by}")
    if there is not None and there.finished:
        draft.wakes.append(QUICK_LOOK_SECONDS)


def _known_dataset(draft: Draft, variant: Variant | None, firing: Firing) -> str | None:
    """The digest of the data with which this run would only repeat the last success."""
    if not draft.seen.schedule.spec.skip_if_unchanged or firing.force:
        return None
    last = next((s for s in draft.status.successes or () if s.variant == (variant.name if variant else "")), None)
    same = last is not None and last.template_digest == digest(
        child_spec(draft.seen.schedule, variant, firing.overrides)
    )
    return last.dataset_digest if last is not None and same else None


def _tidy(draft: Draft) -> None:
    """History limits. What the written status still counts as active is not deleted before it has been booked."""
    seen, spec = draft.seen, draft.seen.schedule.spec
    unbooked = {a.name for a in (*(seen.status.active or ()), *(draft.status.active or ()))}
    firing = draft.status.firing or seen.status.firing
    if firing is not None:
        unbooked |= {child_name(seen.schedule.name, v.name if v else None, firing) for v in draft.variants()}
    for child in history.surplus(
        [c for c in seen.children if c.name not in unbooked],
        successful=spec.successful_runs_history_limit,
        failed=spec.failed_runs_history_limit,
    ):
        draft.actions.append(Delete(child.name, child.uid))


# The end of a look


def _refuse(draft: Draft, wrong: list[str]) -> Plan:
    """A spec that can start nothing. Slots that pass meanwhile are not made up for."""
    zone = any("time zone" in fault for fault in wrong)
    reason = ScheduleReason.UNKNOWN_TIME_ZONE if zone else ScheduleReason.INVALID_SPEC
    draft.set(next_schedule_time=None, clock_digest="")
    standing = Standing(ScheduleState.INVALID, reason, "; ".join(wrong)[:30000])
    if draft.seen.status.message != standing.message:
        draft.note("Warning", reason, standing.message)
    status = stand(
        draft.status,
        standing,
        suspended=draft.seen.schedule.spec.suspend,
        generation=draft.seen.generation,
        now=draft.seen.now,
    )
    return Plan(status, notices=tuple(draft.notices))


def _finish(draft: Draft, timetable: Timetable | None, polls: tuple[str, ...], *, write_first: bool = False) -> Plan:
    seen, spec = draft.seen, draft.seen.schedule.spec
    following = None if spec.suspend else clockwork.following(timetable, draft.status, seen.now)
    draft.set(next_schedule_time=rfc3339(following) if following else None, summary=clockwork.summary(spec))
    if following is not None:
        draft.wakes.append((following - seen.now).total_seconds())
    status = stand(
        draft.status, _standing(draft, following), suspended=spec.suspend, generation=seen.generation, now=seen.now
    )
    return Plan(
        status,
        actions=() if write_first else tuple(draft.actions),
        requeue_after=min((max(w, 0.0) for w in draft.wakes), default=None),
        notices=tuple(draft.notices),
        polls=polls,
        write_first=write_first,
    )


def _standing(draft: Draft, following: datetime | None) -> Standing:
    spec, running = draft.seen.schedule.spec, [a.name for a in draft.status.active or ()]
    if draft.waiting:
        return Standing(ScheduleState.WAITING, ScheduleReason.SCHEDULED, draft.waiting)
    if running:
        more = f" and {len(running) - 1} more" if len(running) > 1 else ""
        return Standing(ScheduleState.RUNNING, ScheduleReason.SCHEDULED, f"{running[0]}{more} under way")
    if spec.suspend:
        return Standing(ScheduleState.SUSPENDED, ScheduleReason.SUSPENDED, "suspended: only run-now starts anything")
    if following is None:
        return Standing(ScheduleState.SCHEDULED, ScheduleReason.SCHEDULED, "waiting for a trigger")
    return Standing(ScheduleState.SCHEDULED, ScheduleReason.SCHEDULED, f"next start at {rfc3339(following)}")
