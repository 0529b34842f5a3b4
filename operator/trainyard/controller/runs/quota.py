"""GPU hours that a namespace, or an agent in it, may use in a month. Pure.

The hours are those of the runs that are there: what was deleted no longer counts. A month is one of the calendar, UTC. What has
begun goes on; the next attempt of a training waits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from trainyard.api.conditions import Reason, State
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.runs.cost import HOUR, gpus_of_training, spent, written
from trainyard.controller.runs.observed import Observed, Used
from trainyard.controller.runs.status import Standing


@dataclass(frozen=True)
class Quota:
    """One that a run counts against."""

    name: str
    """As in the chart's value: a namespace, or `namespace/agent`."""
    hours: float
    of_agent: bool


def of(seen: Observed, quotas: Mapping[str, float]) -> list[Quota]:
    """Those that the run counts against; none of a run without GPUs."""
    run = seen.run
    if not quotas or not gpus_of_training(run.spec):
        return []
    agent = run.spec.owner.agent if run.spec.owner is not None else ""
    keys = [(run.namespace, False), *([(f"{run.namespace}/{agent}", True)] if agent else [])]
    return [Quota(key, quotas[key], of_agent) for key, of_agent in keys if key in quotas]


def used(runs: Iterable[tuple[str, TrainingRunStatus]], *, agent: str, now: datetime) -> Used:
    """GPU seconds of the month so far, of all runs (each with its agent) and of those of one agent."""
    since = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    in_all = of_agent = 0
    for whose, status in runs:
        seconds = spent(status.steps or (), until=now, since=since)
        in_all += seconds
        of_agent += seconds if agent and whose == agent else 0
    return Used(in_all, of_agent)


def exceeded(seen: Observed, quotas: Mapping[str, float]) -> Standing | None:
    """Why no further attempt of the training begins this month."""
    for quota in of(seen, quotas):
        seconds = seen.used.of_agent if quota.of_agent else seen.used.in_all
        if Decimal(seconds) / HOUR >= Decimal(repr(quota.hours)):
            message = (
                f"{quota.name} has used {written(Decimal(seconds) / HOUR)} of its {written(Decimal(repr(quota.hours)))} GPU hours of "
                f"{seen.now:%Y-%m}: the training begins next month, or when the chart's value cost.monthlyGpuHours allows more"
            )
            return Standing(State.PENDING, Reason.QUOTA, message)
    return None
