"""What holds a run back because of its cost: approval that it waits for, a limit that it has reached. Pure."""

from decimal import Decimal

from trainyard.api.conditions import Reason, State
from trainyard.controller.runs.case import Case
from trainyard.controller.runs.cost import HOUR, estimated_seconds, gpus_of_training, money, spent, written
from trainyard.controller.runs.ending import Plan, finish
from trainyard.controller.runs.status import Standing

NOT_APPROVED = ("", "false")
"""Values of the annotation that say no."""


def hold(case: Case) -> Plan | None:
    """A run that may not begin yet, or not go on."""
    cost = case.seen.run.spec.cost
    if cost is None or case.working:
        return None
    if cost.limit is not None and case.rate is None and gpus_of_training(case.seen.run.spec):
        message = (
            f"spec.cost.limit is {_amount(case, Decimal(repr(cost.limit)))}, and nobody has said what a GPU hour costs: give "
            "spec.cost.hourlyRate, or have the chart's value cost.prices name the product or '*'"
        )
        return finish(case, Standing(State.PENDING, Reason.INVALID_SPEC, message, stalled=True))
    waits = cost.require_approval and case.status.start_time is None
    if waits and (case.seen.approved or "").strip().lower() in NOT_APPROVED:
        message = f"waits for approval ({_outlook(case)}): trainyard approve {case.seen.run.name}"
        return finish(case, Standing(State.PENDING, Reason.WAITING_FOR_APPROVAL, message))
    return None


def over(case: Case) -> str:
    """That the run has spent what it may."""
    spec, steps = case.seen.run.spec, case.status.steps or ()
    limit = spec.cost.limit if spec.cost is not None else None
    seconds, rate = spent(steps, until=case.seen.now), case.rate
    assert limit is not None
    assert rate is not None
    hours = written(Decimal(seconds) / HOUR)
    spent_so_far = _amount(case, money(seconds, rate))
    return f"spec.cost.limit of {_amount(case, Decimal(repr(limit)))} is reached: {spent_so_far} for {hours} GPU hours"


def _outlook(case: Case) -> str:
    """What is known of the cost before anything has begun."""
    spec, cost, rate = case.seen.run.spec, case.seen.run.spec.cost, case.rate
    gpus = gpus_of_training(spec)
    words = [f"{gpus} GPU{'' if gpus == 1 else 's'}" + (f" at {_amount(case, rate)} an hour each" if rate else "")]
    seconds = estimated_seconds(spec, case.status, until=case.seen.now)
    if seconds is not None:
        most = _amount(case, money(seconds, rate)) if rate else f"{written(Decimal(seconds) / HOUR)} GPU hours"
        expected = all(phase.expected_duration_seconds for phase in spec.phases or ()) and spec.phases
        words.append(
            f"about {most} as spec.phases expect" if expected else f"at most {most} by spec.activeDeadlineSeconds"
        )
    elif gpus:
        words.append("for how long is not known: spec.activeDeadlineSeconds would bound it, mode DryRun tells")
    if cost is not None and cost.limit is not None:
        words.append(f"spec.cost.limit is {_amount(case, Decimal(repr(cost.limit)))}")
    return ", ".join(words)


def _amount(case: Case, number: Decimal) -> str:
    return f"{written(number)} {case.policy.prices.currency_of(case.seen.run.spec)}".rstrip()
