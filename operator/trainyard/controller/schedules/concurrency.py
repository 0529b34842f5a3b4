"""concurrencyPolicy, all of it: what a start does about runs that are still under way. Pure.

    Allow     nothing; it begins beside them
    Forbid    it waits until all of them have ended
    Replace   it begins at once, has them write a checkpoint and end, and makes its own runs when they have

A start that has not made all of its runs yet stands in the way of the next one, too; with Replace it gives way.
"""

from collections.abc import Collection

from trainyard.api.schedule.status import Firing, ScheduleReason
from trainyard.controller.schedules.draft import Cancel, Draft


def in_the_way(draft: Draft) -> str | None:
    """What keeps the next start from beginning, in words."""
    policy, firing = draft.seen.schedule.spec.concurrency_policy, draft.status.firing
    if firing is not None and policy != "Replace":
        return f"the start of {firing.time} has not made all of its runs yet"
    live = [c.name for c in draft.seen.children if not c.finished]
    if policy == "Forbid" and live:
        others = f" and {len(live) - 1} more" if len(live) > 1 else ""
        return f"{live[0]}{others} is under way and concurrencyPolicy is Forbid"
    return None


def make_way(draft: Draft) -> None:
    """A start that is under way ends where it stands, because the next one replaces it."""
    if (old := draft.status.firing) is not None:
        left = len(draft.variants()) - old.next_variant
        draft.count(skipped=1)
        draft.note(
            "Normal", ScheduleReason.REPLACED, f"the start of {old.time} gives way with {left} of its runs not made"
        )


def clear(draft: Draft, firing: Firing, own: Collection[str]) -> bool:
    """Whether the start may make its runs (called `own`) now; with Replace, others are told to end before."""
    others = [c for c in draft.seen.children if not c.finished and c.name not in own]
    if draft.seen.schedule.spec.concurrency_policy != "Replace" or not others:
        return True
    for child in others:
        if not child.cancelling:
            draft.actions.append(Cancel(child.name, f"replaced by the start of {firing.time}"))
            draft.note("Normal", ScheduleReason.REPLACED, f"{child.name} makes room for the start of {firing.time}")
    draft.waiting = f"the start of {firing.time} waits for {others[0].name} to write its checkpoint and end"
    return False
