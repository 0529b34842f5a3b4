"""The run's account book: what happened to each attempt, brought up to date with the Jobs that are there.

The status is the only memory. An attempt is entered when its Job is made, and closed when the Job is seen finished or
seen missing. Whatever moment the operator dies at, the next look at Jobs and status closes the same entries the same
way; a Job that exists without an entry (the status write was lost) is entered here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from trainyard.api.conditions import Reason
from trainyard.api.progress import FinalRecord, ProgressRecord
from trainyard.api.run.status import ATTEMPTS_KEPT, Attempt, StepStatus
from trainyard.controller.clock import rfc3339
from trainyard.controller.manifests.metadata import PlannedStep
from trainyard.controller.runs import retry, sidecars, told
from trainyard.controller.runs.cost import gpu_seconds, seconds
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.outcome import Outcome, failed_outcome, final_record
from trainyard.controller.runs.phases import reached
from trainyard.controller.runs.pods import all_succeeded
from trainyard.controller.runs.views import JobView


@dataclass(frozen=True)
class Ledger:
    """All steps after booking, and what was newly learned by it."""

    planned: tuple[PlannedStep, ...]
    steps: tuple[StepStatus, ...]
    """One for each that is planned, in the same order."""
    counted: int
    """Failures that count towards backoffLimit, over the whole run."""
    disrupted: int = 0
    """Attempts whose pods were taken away, over the whole run."""
    finals: tuple[tuple[str, FinalRecord], ...] = ()
    """Final records of attempts that were closed just now, with the step of each."""
    failures: Mapping[str, Outcome] = field(default_factory=dict)
    """By step: the failure of an attempt that was closed just now."""

    def open(self) -> tuple[StepStatus, ...]:
        """The steps that may be worked on now: not done, not given up, and all that they come after is done."""
        done: set[str] = set()
        ended = {step.name for step in self.steps if step.state in ("Succeeded", "Failed", "Skipped")}
        result = []
        for planned, step in zip(self.planned, self.steps, strict=True):
            if planned.after <= done and planned.ends <= ended:
                if step.state == "Succeeded":
                    done.add(step.name)
                elif step.state not in ("Failed", "Skipped"):
                    result.append(step)
        return tuple(result)

    def counted_with(self, step: StepStatus) -> int:
        """Failures that had counted when this step's newest attempt ended; those of other steps since are not its concern."""
        if self.is_optional(step):
            return retry.failures(step)
        last = last_attempt(step)
        ended = (last.completion_time if last else None) or ""
        others = (a for s in self.steps if s.name != step.name and not self.is_optional(s) for a in s.attempts or ())
        return self.counted - sum(bool(a.counted) and (a.completion_time or "") > ended for a in others)

    def is_optional(self, step: StepStatus) -> bool:
        """Whether the run can do without it."""
        return any(planned.optional for planned in self.planned if planned.name == step.name)

    @property
    def foremost(self) -> StepStatus | None:
        """The open step that people are told of first: one that is worked on, else the first. None when all is done."""
        opened = self.open()
        return next((s for s in opened if s.state == "Running"), opened[0] if opened else None)


def last_attempt(step: StepStatus) -> Attempt | None:
    """The newest attempt of a step."""
    return step.attempts[-1] if step.attempts else None


def restarts(steps: Sequence[StepStatus]) -> int:
    """Attempts beyond the first of each step."""
    return sum(last.number - 1 for s in steps if (last := last_attempt(s)))


def book(seen: Observed) -> Ledger:
    """Bring the steps of the status up to date with the Jobs."""
    known = {s.name: s for s in seen.status.steps or ()}
    ledger = Ledger(seen.run.steps, (), seen.status.restarts_count_towards_max or 0, seen.status.disruptions or 0)
    for planned in ledger.planned:
        step = known.get(planned.name) or _not_begun(planned.name)
        booked = _book_step(seen, ledger, step)
        for job in _unknown_jobs(seen, step):
            # The attempt before it was closed first, by the look that made this Job and could not say so.
            *others, step = booked.steps
            entered = enter(step, attempt=job.attempt, job=job.name, at=job.created, first_step=None)
            booked = _book_step(seen, replace(booked, steps=tuple(others)), entered)
        limit = seen.run.spec.backoff_limit if planned.limit is None else planned.limit
        ledger = _spare(booked, counted=ledger.counted, limit=limit) if planned.optional else booked
    return ledger


@lru_cache(maxsize=1024)
def _not_begun(name: str) -> StepStatus:
    return StepStatus(name=name, state="Waiting")


def _spare(ledger: Ledger, *, counted: int, limit: int) -> Ledger:
    """The last step that was booked is one that the run can do without: it costs the run nothing, and may be given up."""
    *others, step = ledger.steps
    if retry.is_given_up(step, limit=limit):
        step = step.model_copy(update={"state": "Failed"})
    return replace(ledger, steps=(*others, step), counted=counted)


def _unknown_jobs(seen: Observed, step: StepStatus) -> list[JobView]:
    """Those of the step that no entry speaks of, in order."""
    last = last_attempt(step)
    newest = last.number if last else 0
    return sorted((j for j in seen.jobs if j.step == step.name and j.attempt > newest), key=lambda j: j.attempt)


def enter(step: StepStatus, *, attempt: int, job: str, at: datetime, first_step: int | None) -> StepStatus:
    """Open an entry."""
    entry = Attempt(number=attempt, state="Running", start_time=rfc3339(at), first_step=first_step)
    return _with(step, entry, state="Running", job=job)


def _with(step: StepStatus, entry: Attempt, **changes: object) -> StepStatus:
    """One entry more; what the oldest has cost stays when it goes."""
    attempts = [*(step.attempts or ()), entry]
    gone = attempts[:-ATTEMPTS_KEPT]
    for name, total in (
        ("earlier_seconds", sum(map(seconds, gone))),
        ("earlier_gpu_seconds", sum(map(gpu_seconds, gone))),
    ):
        if total:
            changes[name] = (getattr(step, name) or 0) + total
    return step.model_copy(update={"attempts": attempts[-ATTEMPTS_KEPT:], **changes})


def succeed_at_once(step: StepStatus, *, at: datetime) -> StepStatus:
    """An attempt without a Job: begun and done in one look."""
    return _at_once(step, at, "Succeeded", state="Succeeded")


def fail_at_once(step: StepStatus, message: str, *, at: datetime) -> StepStatus:
    """One that failed. Whether another follows is decided at the next look, as for any other."""
    reason = Reason.EXPORT_FAILED.value
    return _at_once(step, at, "Waiting", state="Failed", reason=reason, counted=True, message=told.fault(message))


def _at_once(step: StepStatus, at: datetime, stands: str, **attempt: Any) -> StepStatus:
    number = (step.attempts[-1].number if step.attempts else 0) + 1
    entry = Attempt(number=number, start_time=rfc3339(at), completion_time=rfc3339(at), **attempt)
    return _with(step, entry, state=stands)


def amend(step: StepStatus, **changes: object) -> StepStatus:
    """Change the newest entry."""
    attempts = list(step.attempts or ())
    attempts[-1] = attempts[-1].model_copy(update=changes)
    return step.model_copy(update={"attempts": attempts})


def _book_step(seen: Observed, ledger: Ledger, step: StepStatus) -> Ledger:
    last = last_attempt(step)
    if step.state != "Succeeded" and _overtaken(seen, step, last):
        if last is not None:
            ended = last.completion_time or rfc3339(seen.now)
            step = amend(step, state="Succeeded", exit_code=0, completion_time=ended)
        return replace(ledger, steps=(*ledger.steps, step.model_copy(update={"state": "Succeeded"})))
    if last is None or last.state != "Running" or step.state == "Succeeded":
        return replace(ledger, steps=(*ledger.steps, step))
    job = seen.job_of(step.name, last.number)
    if job is None:
        return _closed(ledger, _close_deleted(seen, step))
    pod = seen.pod_of(job)
    pods = seen.pods_of(job)
    if job.gpus and last.gpus is None:
        step = amend(step, gpus=job.gpus)
    if last.node is None and (first := next((p for p in pods if p.started), None)):
        step = amend(step, node=first.node, pod_start_time=rfc3339(first.began) if first.began else None)
    # Pods that have succeeded make their Job succeed, a second or two later; the next step need not wait for that.
    succeeded = job.succeeded or (all_succeeded(job, pods) and not job.failed)
    over = sidecars.seconds_left(job, pods, seen.now) == 0
    if over and not any(p.exit_code for p in pods):
        succeeded = True
    record = final_record(pod)
    step, forgiven = _learn_start(step, record or seen.progress)
    ledger = replace(ledger, counted=ledger.counted - forgiven)
    finals = (*ledger.finals, (step.name, record)) if record else ledger.finals
    if not succeeded and (job.terminating or not (job.failed or over)):
        if job.terminating and record is not None:
            # The pod of a Job that was deleted says where it stopped, and is gone a moment later.
            step = amend(step, last_step=record.step_number)
        if job.terminating and pod is not None and pod.ended:
            step = amend(step, completion_time=rfc3339(pod.ended))
        if job.failed:
            # Its pod failed because it was told to stop, with whatever exit code; that is no fault of the attempt.
            return replace(_closed(ledger, _close_deleted(seen, step)), finals=finals)
        return replace(ledger, steps=(*ledger.steps, step), finals=finals)

    ended = rfc3339((pod.ended if pod else None) or job.ended or seen.now)
    last_step = record.step_number if record else None
    if succeeded:
        step = amend(step, state="Succeeded", exit_code=0, completion_time=ended, last_step=last_step)
        step = step.model_copy(update={"state": "Succeeded"})
        return replace(ledger, steps=(*ledger.steps, step), finals=finals)

    outcome = failed_outcome(job, pod, progressed=_progressed(seen, step.name, last, record))
    step = amend(
        step,
        state="Failed",
        reason=outcome.reason.value,
        counted=outcome.counted,
        exit_code=outcome.exit_code,
        message=told.fault(outcome.message),
        completion_time=ended,
        last_step=last_step if last_step is not None else _reported_step(seen, step.name, last.number),
        last_log_lines=list(outcome.log_lines) or None,
    )
    return replace(
        _closed(ledger, step),
        counted=ledger.counted + outcome.counted,
        finals=finals,
        failures={**ledger.failures, step.name: outcome},
    )


def _closed(ledger: Ledger, step: StepStatus) -> Ledger:
    """With this step, whose newest attempt was closed just now."""
    last = last_attempt(step)
    taken = last is not None and last.reason in (Reason.DISRUPTED, Reason.INTERRUPTED)
    return replace(ledger, steps=(*ledger.steps, step), disrupted=ledger.disrupted + taken)


def _learn_start(step: StepStatus, record: FinalRecord | ProgressRecord | None) -> tuple[StepStatus, bool]:
    """The entry with the optimizer step that the attempt really went on from, and whether that forgives the one before."""
    last = last_attempt(step)
    if (
        last is None
        or record is None
        or record.first_step is None
        or (record.step, record.attempt) != (step.name, last.number)
    ):
        return step, False
    step = amend(step, first_step=record.first_step)
    attempts = list(step.attempts or ())
    if len(attempts) < 2 or not retry.is_forgiven(attempts[-2], goes_on_from=record.first_step):
        return step, False
    attempts[-2] = attempts[-2].model_copy(update={"counted": False})
    return step.model_copy(update={"attempts": attempts}), True


def _overtaken(seen: Observed, step: StepStatus, last: Attempt | None) -> bool:
    """Whether a later step has begun while the Job of this one is gone.

    Then this one had succeeded; only the status write that would have said so was lost, and the Job after it.
    """
    if last is not None and seen.job_of(step.name, last.number) is not None:
        return False
    return any(job.step in seen.run.followers[step.name] for job in seen.jobs)


def _close_deleted(seen: Observed, step: StepStatus) -> StepStatus:
    """The Job was deleted before it had finished: by the operator, to suspend or to cancel, or by somebody else."""
    last = (step.attempts or [])[-1]
    reason = retry.reason_of_deletion(last, told_to_stop=seen.told_to_stop)
    return amend(
        step,
        state="Stopped",
        reason=reason.value,
        counted=retry.counts(reason, progressed=False),
        message=None if reason is Reason.SUSPENDED else f"Job {step.job} was deleted",
        completion_time=last.completion_time or rfc3339(seen.now),
        last_step=_reported_step(seen, step.name, last.number) if last.last_step is None else last.last_step,
    )


def _reported_step(seen: Observed, step: str, attempt: int) -> int | None:
    record = seen.progress
    return record.step_number if record and (record.step, record.attempt) == (step, attempt) else None


def _progressed(seen: Observed, step: str, last: Attempt, record: FinalRecord | None) -> bool:
    """Whether a checkpoint was committed during the attempt."""
    told = (record.checkpoint if record else None, seen.progress.checkpoint if seen.progress else None)
    newest = [reached(step, c) for c in (*told, seen.status.checkpoint)]
    return max(newest) > (last.first_step or 0)
