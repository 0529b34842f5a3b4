"""One look at one run in one value: what every part of the decision reads, so that it need not be handed around in pieces."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, Self

from trainyard.api import names
from trainyard.api.gpus import gpus_in
from trainyard.api.run.status import StepStatus, TrainingRunStatus
from trainyard.controller.manifests.job import step_resources
from trainyard.controller.runs.cost import HOUR, spent, worked
from trainyard.controller.runs.ledger import Ledger, last_attempt, restarts
from trainyard.controller.runs.observed import Observed, Policy
from trainyard.controller.runs.views import JobView, PodView, parse_time


@dataclass(frozen=True)
class Work:
    """An open step, and the Job that is under way for it; None before an attempt."""

    step: StepStatus
    job: JobView | None = None
    pod: PodView | None = None
    """The one that tells how the Job fares."""

    @property
    def started(self) -> bool:
        """Whether the trainer's container runs, or has run."""
        return self.pod is not None and self.pod.started


@dataclass(frozen=True)
class Deadline:
    """How long something may take in all."""

    field: str
    limit: int
    left: float
    """Seconds; 0 or less when it is over."""


@dataclass(frozen=True)
class Case:
    """What was seen, what the books say of it, and the status as far as it has come."""

    seen: Observed
    policy: Policy
    ledger: Ledger
    status: TrainingRunStatus

    @cached_property
    def open(self) -> tuple[Work, ...]:
        """The steps that may be worked on now."""
        return tuple(self._work(step) for step in self.ledger.open())

    def _work(self, step: StepStatus) -> Work:
        last = last_attempt(step)
        job = self.seen.job_of(step.name, last.number) if last and last.state == "Running" else None
        return Work(step) if job is None else Work(step, job, self.seen.pod_of(job))

    @cached_property
    def working(self) -> tuple[Work, ...]:
        """Those of them that have a Job."""
        return tuple(work for work in self.open if work.job is not None)

    def with_status(self, **changes: Any) -> Self:
        """The same case with fields of the status changed."""
        return replace(self, status=self.status.model_copy(update=changes))

    def with_steps(self, changed: Iterable[StepStatus], **changes: Any) -> Self:
        """The same with these steps in place of those of their names."""
        by_name = {step.name: step for step in changed}
        steps = [by_name.get(step.name, step) for step in self.status.steps or ()]
        return self.with_status(steps=steps, restarts=restarts(steps), **changes)

    @property
    def edited(self) -> bool:
        """Whether the spec is another one than the status speaks of."""
        return self.seen.status.observed_generation != self.seen.generation

    def admitted(self, work: Work) -> bool:
        """Whether a queue has released the Job, and its pod may still need what the run has to make for it."""
        queued = names.QUEUE_LABEL in self.seen.run.labels
        return queued and work.job is not None and not work.job.suspended and not work.started

    @cached_property
    def deadline(self) -> Deadline | None:
        """The one that is reached first: of the run, or of a phase that is open."""
        found = []
        if (limit := self.seen.run.spec.active_deadline_seconds) is not None:
            since = parse_time(self.status.active_since)
            active = (self.seen.now - since).total_seconds() if since else 0.0
            left = limit - (self.status.active_seconds or 0) - active
            found.append(Deadline("spec.activeDeadlineSeconds", limit, left))
        for work in self.open:
            phase = self.seen.run.phase_of(work.step.name)
            if phase is not None and (limit := phase.active_deadline_seconds) is not None:
                left = float(limit - worked(work.step, until=self.seen.now))
                found.append(Deadline(f"spec.phases[{phase.name}].activeDeadlineSeconds", limit, left))
        return min(found, key=lambda deadline: deadline.left, default=None)

    @property
    def seconds_left(self) -> float | None:
        """Until that; None without one."""
        return self.deadline.left if self.deadline is not None else None

    @property
    def rate(self) -> Decimal | None:
        """Price of a GPU hour of the run."""
        return self.policy.prices.rate(self.seen.run.spec)

    @cached_property
    def budget_seconds(self) -> float | None:
        """GPU seconds until spec.cost.limit; below 0 beyond it, None without a limit or while nothing open has GPUs."""
        cost, rate = self.seen.run.spec.cost, self.rate
        if cost is None or cost.limit is None or not rate:
            return None
        wanted = (step_resources(self.seen.run, work.step.name) for work in self.open)
        if not any(gpus_in({**one.requests, **one.limits}) for one in wanted):
            return None
        return float(Decimal(repr(cost.limit)) / rate * HOUR) - spent(self.status.steps or (), until=self.seen.now)

    @property
    def over_budget(self) -> bool:
        """Whether the run has spent what it may, and would spend more."""
        return self.budget_seconds is not None and self.budget_seconds <= 0
