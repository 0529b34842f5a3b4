"""The run's account book: what happened to each attempt, brought up to date with the Jobs that are there.

The status is the only memory. An attempt is entered when its Job is made, and closed when the Job is seen finished or
seen missing. Whatever moment the operator dies at, the next look at Jobs and status closes the same entries the same
way; a Job that exists without an entry (the status write was lost) is entered here.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trainyard.api.conditions import FINAL_REASONS, Reason
from trainyard.api.progress import FinalRecord, ProgressRecord
from trainyard.api.run.status import ATTEMPTS_KEPT, Attempt, StepStatus
from trainyard.api.steps import is_train
from trainyard.controller.clock import rfc3339
from trainyard.controller.runs.observed import Observed, Policy
from trainyard.controller.runs.outcome import Outcome, failed_outcome, final_record
from trainyard.controller.runs.phases import reached
from trainyard.controller.runs.pods import all_succeeded
from trainyard.controller.runs.views import JobView, parse_time

DISRUPTION_DELAYS = (0.0, 0.0, 2.0, 5.0, 15.0, 30.0, 60.0)
"""Seconds before an uncounted repetition, by how many attempts in a row made no progress."""


@dataclass(frozen=True)
class Ledger:
    """All steps after booking, and what was newly learned by it."""

    steps: tuple[StepStatus, ...]
    counted: int
    """Failures that count towards backoffLimit, over the whole run."""
    finals: tuple[tuple[str, FinalRecord], ...] = ()
    """Final records of attempts that were closed just now, with the step of each."""
    failure: tuple[str, Outcome] | None = None
    """The failure of an attempt that was closed just now."""

    @property
    def current(self) -> StepStatus | None:
        """The first step that has not succeeded; None when all have."""
        return next((s for s in self.steps if s.state != "Succeeded"), None)


def last_attempt(step: StepStatus) -> Attempt | None:
    """The newest attempt of a step."""
    return step.attempts[-1] if step.attempts else None


def restarts(steps: tuple[StepStatus, ...]) -> int:
    """Attempts beyond the first of each step."""
    return sum(last.number - 1 for s in steps if (last := last_attempt(s)))


def book(seen: Observed) -> Ledger:
    """Bring the steps of the status up to date with the Jobs."""
    known = {s.name: s for s in seen.status.steps or ()}
    ledger = Ledger((), seen.status.restarts_count_towards_max or 0)
    for name in seen.run.spec.steps():
        step = known.get(name) or StepStatus(name=name, state="Waiting")
        ledger = _book_step(seen, ledger, _enter_unknown_jobs(seen, step))
    return ledger


def _enter_unknown_jobs(seen: Observed, step: StepStatus) -> StepStatus:
    last = last_attempt(step)
    newest = last.number if last else 0
    for job in sorted((j for j in seen.jobs if j.step == step.name), key=lambda j: j.attempt):
        if job.attempt > newest:
            step = enter(step, attempt=job.attempt, job=job.name, at=job.created, first_step=None)
    return step


def enter(step: StepStatus, *, attempt: int, job: str, at: datetime, first_step: int | None) -> StepStatus:
    """Open an entry."""
    entry = Attempt(number=attempt, state="Running", start_time=rfc3339(at), first_step=first_step)
    attempts = [*(step.attempts or ()), entry][-ATTEMPTS_KEPT:]
    return step.model_copy(update={"state": "Running", "job": job, "attempts": attempts})


def amend(step: StepStatus, **changes: object) -> StepStatus:
    """Change the newest entry."""
    attempts = list(step.attempts or ())
    attempts[-1] = attempts[-1].model_copy(update=changes)
    return step.model_copy(update={"attempts": attempts})


def _book_step(seen: Observed, ledger: Ledger, step: StepStatus) -> Ledger:
    last = last_attempt(step)
    if step.state != "Succeeded" and _overtaken(seen, step, last):
        if last is not None:
            step = amend(step, state="Succeeded", exit_code=0, completion_time=rfc3339(seen.now))
        return replace(ledger, steps=(*ledger.steps, step.model_copy(update={"state": "Succeeded"})))
    if last is None or last.state != "Running" or step.state == "Succeeded":
        return replace(ledger, steps=(*ledger.steps, step))
    job = seen.job_of(step.name, last.number)
    if job is None:
        return replace(ledger, steps=(*ledger.steps, _close_deleted(seen, step)))
    pod = seen.pod_of(job)
    pods = seen.pods_of(job)
    if last.node is None and (first := next((p for p in pods if p.started), None)):
        step = amend(step, node=first.node)
    # Pods that have succeeded make their Job succeed, a second or two later; the next step need not wait for that.
    succeeded = job.succeeded or (all_succeeded(job, pods) and not job.failed)
    record = final_record(pod)
    step, forgiven = _learn_start(step, record or seen.progress)
    ledger = replace(ledger, counted=ledger.counted - forgiven)
    finals = (*ledger.finals, (step.name, record)) if record else ledger.finals
    if not succeeded and (job.terminating or not job.failed):
        if job.terminating and record is not None:
            # The pod of a Job that was deleted says where it stopped, and is gone a moment later.
            step = amend(step, last_step=record.step_number)
        if job.failed:
            # Its pod failed because it was told to stop, with whatever exit code; that is no fault of the attempt.
            step = _close_deleted(seen, step)
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
        message=outcome.message[:4000],
        completion_time=ended,
        last_step=last_step if last_step is not None else _reported_step(seen, step.name, last.number),
        last_log_lines=list(outcome.log_lines) or None,
    )
    return replace(
        ledger,
        steps=(*ledger.steps, step),
        counted=ledger.counted + outcome.counted,
        finals=finals,
        failure=(step.name, outcome),
    )


def _learn_start(step: StepStatus, told: FinalRecord | ProgressRecord | None) -> tuple[StepStatus, bool]:
    """The entry with the optimizer step that the attempt really went on from, and whether that forgives the one before.

    A kill may be quicker than the news of a checkpoint. Then the killed attempt counted as one without progress, until
    the next one goes on from that very checkpoint.
    """
    last = last_attempt(step)
    if last is None or told is None or told.first_step is None or (told.step, told.attempt) != (step.name, last.number):
        return step, False
    step = amend(step, first_step=told.first_step)
    attempts = list(step.attempts or ())
    killed = next((a for a in attempts[-2:-1] if a.counted and a.reason == Reason.KILLED), None)
    if killed is None or told.first_step <= (killed.first_step or 0):
        return step, False
    attempts[-2] = killed.model_copy(update={"counted": False})
    return step.model_copy(update={"attempts": attempts}), True


def _overtaken(seen: Observed, step: StepStatus, last: Attempt | None) -> bool:
    """Whether a later step has begun while the Job of this one is gone.

    Then this one had succeeded; only the status write that would have said so was lost, and the Job after it.
    """
    if last is not None and seen.job_of(step.name, last.number) is not None:
        return False
    order = seen.run.spec.steps()
    return any(job.step in order[order.index(step.name) + 1 :] for job in seen.jobs)


def _close_deleted(seen: Observed, step: StepStatus) -> StepStatus:
    """The Job was deleted before it had finished: by the operator, to suspend or to cancel, or by somebody else."""
    last = (step.attempts or [])[-1]
    suspended = last.reason == Reason.SUSPENDED or seen.told_to_stop
    return amend(
        step,
        state="Stopped",
        reason=(Reason.SUSPENDED if suspended else Reason.DISRUPTED).value,
        counted=False,
        message=None if suspended else f"Job {step.job} was deleted",
        completion_time=rfc3339(seen.now),
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


def is_final(attempt: Attempt) -> bool:
    """Whether the attempt's failure rules out another one."""
    return attempt.state == "Failed" and attempt.reason in FINAL_REASONS


def retry_at(step: StepStatus, *, counted: int, policy: Policy) -> datetime | None:
    """When the next attempt may begin; None for at once."""
    last = last_attempt(step)
    if last is None or last.state not in ("Failed", "Stopped") or last.reason == Reason.SUSPENDED:
        return None
    ended = parse_time(last.completion_time)
    if ended is None:
        return None
    if last.counted:
        delay = min(policy.retry_base_seconds * 2 ** (max(counted, 1) - 1), policy.retry_cap_seconds)
    else:
        delay = DISRUPTION_DELAYS[min(_fruitless(step), len(DISRUPTION_DELAYS) - 1)]
    return ended + timedelta(seconds=delay) if delay else None


def _fruitless(step: StepStatus) -> int:
    """How many attempts in a row ended without having moved the training on."""
    count = 0
    for attempt in reversed(step.attempts or ()):
        if is_train(step.name) and (attempt.last_step or 0) > (attempt.first_step or 0):
            break
        count += 1
    return count


def latest_job(seen: Observed, step: StepStatus) -> JobView | None:
    """The Job of the newest attempt, if it exists."""
    last = last_attempt(step)
    return seen.job_of(step.name, last.number) if last else None
