"""Bringing the status up to date, before anything is decided: ended runs, the clock, the triggers. Pure."""

from trainyard.api.schedule.children import digest
from trainyard.api.schedule.status import ScheduleReason, Success, TrainingScheduleStatus
from trainyard.controller.clock import rfc3339
from trainyard.controller.schedules.draft import Draft
from trainyard.controller.schedules.status import is_suspended
from trainyard.controller.schedules.triggers.judge import Judgement, judge


def book(draft: Draft) -> None:
    """Runs that have ended since the last look."""
    seen, still = draft.seen, []
    for entry in seen.status.active or ():
        child = seen.child(entry.name)
        if child is None:
            continue  # somebody deleted it
        if not child.finished:
            still.append(entry)
            continue
        if child.succeeded:
            draft.count(succeeded=1)
            draft.note("Normal", ScheduleReason.RUN_SUCCEEDED, f"{child.name} succeeded")
        elif child.unchanged:
            draft.count(skipped=1)
            draft.note("Normal", ScheduleReason.SKIPPED, f"{child.name} found nothing new to train on")
        else:
            draft.count(failed=1)
            kind = "Normal" if child.cancelling else "Warning"
            draft.note(kind, ScheduleReason.RUN_FAILED, f"{child.name} ended as {child.state or 'Failed'}")
    # A run of ours that no entry speaks of was made by an operator that ended before it could write so; while its start is
    # still in `firing`, it is entered there, and otherwise here.
    draft.set(active=still or None)
    _book_successes(draft)
    last = seen.status.last_run
    if last is not None and (child := seen.child(last.name)) is not None:
        draft.set(last_run=last.model_copy(update={"state": child.state or "Pending"}))


def _book_successes(draft: Draft) -> None:
    successes = {s.variant: s for s in draft.status.successes or ()}
    for child in draft.seen.children:
        if not child.succeeded or child.completed is None:
            continue
        known = successes.get(child.variant)
        if known is None or rfc3339(child.completed) > known.completion_time:
            successes[child.variant] = Success(
                variant=child.variant,
                run=child.name,
                completion_time=rfc3339(child.completed),
                template_digest=child.template_digest,
                dataset_digest=child.dataset_digest,
            )
    if successes:
        newest = max(s.completion_time for s in successes.values())
        draft.set(last_successful_time=newest, successes=list(successes.values())[-64:])


def wind_up(draft: Draft) -> TrainingScheduleStatus:
    """Where the clock counts from. An edit of the clock, or the end of a suspension, begins anew and fires nothing."""
    seen, spec = draft.seen, draft.seen.schedule.spec
    made_of = digest([spec.schedule, spec.time_zone, spec.interval_seconds])
    if draft.status.clock_digest != made_of:
        first = draft.status.clock_digest is None
        since = rfc3339(seen.schedule.created if first else seen.now)
        draft.set(clock_digest=made_of, handled_until=since, interval_base=since)
    if is_suspended(seen.status) and not spec.suspend:
        fresh = [t.model_copy(update={"spec_digest": None}) for t in draft.status.triggers or ()]
        draft.set(handled_until=rfc3339(seen.now), triggers=fresh or None)
        draft.note("Normal", ScheduleReason.RESUMED, "clock and triggers go on from here")
    if not is_suspended(seen.status) and spec.suspend:
        draft.note("Normal", ScheduleReason.SUSPENDED, "clock and triggers stop")
    return draft.status


def look_at_triggers(draft: Draft) -> tuple[dict[str, Judgement], tuple[str, ...]]:
    """Every trigger's judgement, and those whose source is to be asked again."""
    seen, spec = draft.seen, draft.seen.schedule.spec
    if spec.suspend:
        return {}, ()
    before = {t.name: t for t in draft.status.triggers or ()}
    verdicts: dict[str, Judgement] = {}
    polls = []
    for trigger in spec.triggers:
        look = seen.looks.get(trigger.name)
        verdict = verdicts[trigger.name] = judge(trigger, before.get(trigger.name), look, seen.now)
        if verdict.wake_after is not None:
            draft.wakes.append(verdict.wake_after)
        rest = max(float(trigger.poll_seconds), look.pause if look else 0.0)
        due = 0.0 if look is None else rest - (seen.now - look.at).total_seconds()
        if due <= 0:
            polls.append(trigger.name)
        draft.wakes.append(due if due > 0 else rest)
        was = before.get(trigger.name)
        if verdict.status.failing and not (was and was.failing):
            draft.note("Warning", ScheduleReason.TRIGGER_UNREACHABLE, f"{trigger.name}: {verdict.status.message}")
    draft.set(triggers=[v.status for v in verdicts.values()] or None)
    return verdicts, tuple(polls)
