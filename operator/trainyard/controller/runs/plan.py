"""The decision: from what is there to what is to be done. Pure.

The planner never looks anything up. Where a decision needs something that costs a request and is not needed most of the
time (do the claims exist? what do the Events say?), the plan comes back with a question; the shell answers it and plans
again. Applying a plan and planning again gives an empty plan, whatever moment the operator died at in between.
"""

from dataclasses import dataclass, replace
from typing import Any

from trainyard.api import names
from trainyard.api.conditions import Reason, State
from trainyard.api.run.status import Attempt, Failure, StepStatus, TrainingRunStatus
from trainyard.api.steps import STEP_EVALUATE, STEP_PREPARE, STEP_VALIDATE, is_train, phase_of
from trainyard.controller.clock import rfc3339
from trainyard.controller.kube.resources import JOBS, SECRETS, SERVICES
from trainyard.controller.manifests.job import build_job, build_service, pods_of_step, referenced_secrets
from trainyard.controller.manifests.storage import claims
from trainyard.controller.runs import ledger as books
from trainyard.controller.runs.actions import Action, Apply, Create, Delete
from trainyard.controller.runs.columns import summarise
from trainyard.controller.runs.ledger import Ledger
from trainyard.controller.runs.observed import Observed, Policy, Question
from trainyard.controller.runs.phases import reached
from trainyard.controller.runs.pods import others
from trainyard.controller.runs.prerequisites import missing, obstacle, retention
from trainyard.controller.runs.progress import learn, outputs
from trainyard.controller.runs.status import Standing, is_finished, stand
from trainyard.controller.runs.views import JobView, parse_time
from trainyard.controller.runs.waiting import QUEUED, needs_events, why_waiting

STALLED_RECHECK_SECONDS = 20.0
"""Things outside the run (a claim, a Secret) may appear without an event that reaches us."""
WAITING_RECHECK_SECONDS = (5.0, 60.0)
"""While a pod waits, because Events are not watched: soon at first, then rarer and rarer."""


@dataclass(frozen=True)
class Plan:
    """What to do, in order; then the status. With questions, nothing of it holds yet."""

    status: TrainingRunStatus
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    questions: frozenset[Question] = frozenset()


def plan(seen: Observed, policy: Policy, *, token: str, answered: frozenset[Question] = frozenset()) -> Plan:
    """Decide. `token` is the run's bearer token; `answered` are the questions that have been looked up."""
    if is_finished(seen.status):
        return _after_the_end(seen, answered)
    if not seen.fresh and Question.CHILDREN not in answered:
        return Plan(seen.status, questions=frozenset({Question.CHILDREN}))
    ledger = books.book(seen)
    status = learn(seen, ledger)
    current = ledger.current
    if current is None:
        return _succeed(seen, status)
    job = books.latest_job(seen, current)
    last = books.last_attempt(current)
    if job is not None and last is not None and last.state == "Running":
        return _while_running(seen, status, current, job, token=token, answered=answered)
    return _before_an_attempt(seen, policy, status, ledger, current, token=token, answered=answered)


def _finish(seen: Observed, status: TrainingRunStatus, standing: Standing, **rest: Any) -> Plan:
    status = stand(status, standing, generation=seen.generation, now=seen.now)
    status = status.model_copy(update={"summary": summarise(seen.run.spec, status, standing.state)})
    return Plan(status, **rest)


def _succeed(seen: Observed, status: TrainingRunStatus) -> Plan:
    dry = seen.run.spec.mode == "DryRun"
    status = status.model_copy(
        update={"completion_time": rfc3339(seen.now), "outputs": None if dry else outputs(seen), "active_since": None}
    )
    message = "the spec and the data are fine" if dry else "done"
    if seen.run.spec.mode == "Dataset" and status.dataset is not None:
        message = f"{status.dataset.records} records built"
    plan = _finish(seen, status, Standing(State.SUCCEEDED, Reason.SUCCEEDED, message))
    return replace(plan, requeue_after=_ttl_left(seen, plan.status))


def _fail(
    seen: Observed,
    status: TrainingRunStatus,
    *,
    reason: Reason,
    message: str,
    step: str | None,
    hint: str | None = None,
    actions: tuple[Action, ...] = (),
) -> Plan:
    text = f"{message} ({hint})" if hint else message
    failed = [s.model_copy(update={"state": "Failed"}) if s.name == step else s for s in status.steps or ()]
    status = status.model_copy(
        update={
            "completion_time": rfc3339(seen.now),
            "active_since": None,
            "failure": Failure(reason=reason.value, step=step, message=message[:8000], hint=hint),
            "steps": failed,
        }
    )
    plan = _finish(seen, status, Standing(State.FAILED, reason, text), actions=actions)
    return replace(plan, requeue_after=_ttl_left(seen, plan.status))


def _cancel(seen: Observed, status: TrainingRunStatus, *, reason: Reason, message: str) -> Plan:
    """End it for good without a fault of its own. What a checkpoint holds stays, for another run to go on from."""
    failure = Failure(reason=reason.value, message=message[:8000])
    changes = {"completion_time": rfc3339(seen.now), "active_since": None, "failure": failure}
    plan = _finish(seen, status.model_copy(update=changes), Standing(State.CANCELLED, reason, message))
    return replace(plan, requeue_after=_ttl_left(seen, plan.status))


def _after_the_end(seen: Observed, answered: frozenset[Question]) -> Plan:
    """Nothing is created any more. Retention may still change, and one day the Jobs go."""
    status = seen.status
    edited = status.observed_generation != seen.generation
    left = _ttl_left(seen, status)
    clean_up = left is not None and left <= 0
    questions = {Question.CHILDREN} if clean_up else set()
    questions |= {Question.PREREQUISITES} if edited else set()
    if not questions <= answered:
        return Plan(status, questions=frozenset(questions))
    actions: list[Action] = retention(seen) if edited else []
    if clean_up:
        actions += [Delete(JOBS, j.name, j.uid, "Background") for j in seen.jobs]
        actions.append(Delete(SECRETS, names.config_secret_name(seen.run.name), None, "Background"))
        if seen.run.spec.num_nodes > 1:
            actions.append(Delete(SERVICES, names.service_name(seen.run.name), None, "Background"))
        status = status.model_copy(update={"cleaned_up": True})
        left = None
    if edited:
        status = status.model_copy(update={"observed_generation": seen.generation})
    return Plan(status, tuple(actions), requeue_after=left)


def _ttl_left(seen: Observed, status: TrainingRunStatus) -> float | None:
    ttl, ended = seen.run.spec.ttl_seconds_after_finished, parse_time(status.completion_time)
    if ttl is None or ended is None or status.cleaned_up:
        return None
    return max(0.0, ttl - (seen.now - ended).total_seconds())


_RUNNING_STATE = {
    STEP_PREPARE: (State.PREPARING, Reason.PREPARING, "preparing the data"),
    STEP_VALIDATE: (State.VALIDATING, Reason.VALIDATING, "checking the spec and the data"),
    STEP_EVALUATE: (State.EVALUATING, Reason.EVALUATING, "evaluating"),
}


def _while_running(
    seen: Observed,
    status: TrainingRunStatus,
    current: StepStatus,
    job: JobView,
    *,
    token: str,
    answered: frozenset[Question],
) -> Plan:
    pod = seen.pod_of(job)
    started = pod is not None and pod.started
    admitted = names.QUEUE_LABEL in seen.run.labels and not job.suspended and not started
    edited = seen.status.observed_generation != seen.generation
    if (edited or admitted) and Question.PREREQUISITES not in answered:
        return Plan(status, questions=frozenset({Question.PREREQUISITES}))
    upkeep = tuple(retention(seen))
    if seen.told_to_stop:
        status = _amend(status, current, reason=Reason.SUSPENDED.value)
        stop = () if job.terminating else (Delete(JOBS, job.name, job.uid, "Foreground"),)
        verb = "suspending" if seen.cancel is None else "cancelling"
        standing = Standing(State.PENDING, Reason.SUSPENDING, f"{verb}: waiting for the pod to save its state and stop")
        return _finish(seen, status, standing, actions=(*upkeep, *stop))
    if job.terminating:
        standing = Standing(State.PENDING, Reason.PENDING, f"waiting for Job {job.name}, which was deleted, to be gone")
        return _finish(seen, status, standing, actions=upkeep)
    left = _deadline_left(seen, status)
    if left is not None and left <= 0:
        return _exceed_deadline(seen, status, current, (*upkeep, Delete(JOBS, job.name, job.uid, "Foreground")))

    if admitted:
        upkeep += tuple(missing(seen, status, token=token))
    if needs_events(job, pod, seen.now) and Question.EVENTS not in answered:
        return Plan(status, questions=frozenset({Question.EVENTS}))
    if pod is not None and pod.unschedulable and Question.NODES not in answered:
        return Plan(status, questions=frozenset({Question.NODES}))
    wait = why_waiting(job, pod, now=seen.now, warning=seen.warning, impossible=seen.impossible, line=seen.line)
    if wait is not None:
        wait = replace(wait, message=wait.message + others(job, pod, seen.pods_of(job)))
        # A queue may hold a Job for days; the event of its release is all there is to wait for.
        look_again = None if job.suspended else _recheck(seen, job)
        return _finish(seen, status, wait.standing, actions=upkeep, requeue_after=_soonest(left, look_again))
    if not started:
        where = f" on {pod.node}" if pod and pod.node else ""
        rest = others(job, pod, seen.pods_of(job))
        standing = Standing(State.PENDING, Reason.PENDING, f"starting {current.name}{where}{rest}")
        return _finish(seen, status, standing, actions=upkeep, requeue_after=_soonest(left, _recheck(seen, job)))
    phase = phase_of(current.name)
    training = (State.TRAINING, Reason.TRAINING, f"training phase {phase}" if phase else "training")
    state, reason, verb = _RUNNING_STATE.get(current.name, training)
    nodes = ", ".join(dict.fromkeys(str(p.node) for p in seen.pods_of(job)))
    return _finish(seen, status, Standing(state, reason, f"{verb} on {nodes}"), actions=upkeep, requeue_after=left)


def _before_an_attempt(
    seen: Observed,
    policy: Policy,
    status: TrainingRunStatus,
    ledger: Ledger,
    current: StepStatus,
    *,
    token: str,
    answered: frozenset[Question],
) -> Plan:
    spec = seen.run.spec
    last = books.last_attempt(current)
    if last is not None and last.state == "Failed" and (failed := _give_up(seen, status, ledger, current, last)):
        return failed
    if (pod := seen.left_behind()) is not None:
        # Two pods of one run must never write to the same volume, and a GPU is not free before its pod is gone.
        standing = Standing(State.PENDING, Reason.PENDING, f"waiting for pod {pod.name}, whose Job is gone, to end")
        return _finish(seen, status, standing, requeue_after=STALLED_RECHECK_SECONDS)
    if seen.cancel is not None:
        return _cancel(
            seen, status, reason=Reason.CANCELLED, message=f"cancelled: {seen.cancel or 'no reason was given'}"
        )
    if is_train(current.name) and not _any_training(status) and _trained_already(seen, status):
        text = "nothing new to train: the prepared data are those of the last successful run"
        return _cancel(seen, status, reason=Reason.UNCHANGED, message=text)
    if spec.suspend:
        if any(pod.live or pod.terminating for pod in seen.pods):
            # Its container may have ended, and the Job with it, while the kubelet still cleans up: the GPU is free after that.
            standing = Standing(State.PENDING, Reason.SUSPENDING, "suspending: waiting for the pod to be gone")
            return _finish(seen, status, standing, requeue_after=STALLED_RECHECK_SECONDS)
        status = _stop_the_clock(seen, status)
        return _finish(seen, status, Standing(State.SUSPENDED, Reason.SUSPENDED, _suspended_message(status)))
    left = _deadline_left(seen, status)
    if left is not None and left <= 0:
        return _exceed_deadline(seen, status, current, ())
    due = books.retry_at(current, counted=ledger.counted, policy=policy)
    if due is not None and due > seen.now and last is not None:
        wait = (due - seen.now).total_seconds()
        why = last.message or last.reason or "it failed"
        standing = Standing(State.PENDING, Reason.RETRYING, f"{current.name} is tried again at {rfc3339(due)}: {why}")
        return _finish(seen, status, standing, requeue_after=_soonest(left, wait))

    outside = bool(referenced_secrets(seen.run)) or any(c.claim is None or c.claim.claim_name for c in claims(seen.run))
    if (not seen.fresh or outside) and Question.PREREQUISITES not in answered:
        return Plan(status, questions=frozenset({Question.PREREQUISITES}))
    if obstructed := obstacle(seen, status):
        return _finish(seen, status, obstructed, requeue_after=_soonest(left, STALLED_RECHECK_SECONDS))
    return _start_attempt(seen, policy, status, current, token=token, left=left)


def _any_training(status: TrainingRunStatus) -> bool:
    return any(is_train(s.name) and s.attempts for s in status.steps or ())


def _trained_already(seen: Observed, status: TrainingRunStatus) -> bool:
    digest = status.dataset.digest if status.dataset else None
    return digest is not None and digest == seen.trained_already


def _give_up(
    seen: Observed, status: TrainingRunStatus, ledger: Ledger, current: StepStatus, last: Attempt
) -> Plan | None:
    limit = seen.run.spec.backoff_limit
    hint = ledger.failure[1].hint if ledger.failure and ledger.failure[0] == current.name else None
    message = last.message or "it failed"
    if books.is_final(last):
        return _fail(seen, status, reason=Reason(str(last.reason)), message=message, step=current.name, hint=hint)
    if last.counted and ledger.counted > limit:
        times = "once" if ledger.counted == 1 else f"{ledger.counted} times"
        text = f"{current.name} failed {times}, spec.backoffLimit is {limit}; the last time: {message}"
        return _fail(seen, status, reason=Reason.BACKOFF_LIMIT_EXCEEDED, message=text, step=current.name, hint=hint)
    return None


def _start_attempt(
    seen: Observed,
    policy: Policy,
    status: TrainingRunStatus,
    current: StepStatus,
    *,
    token: str,
    left: float | None,
) -> Plan:
    run, last = seen.run, books.last_attempt(current)
    number = (last.number if last else 0) + 1
    actions = [] if names.QUEUE_LABEL in run.labels else missing(seen, status, token=token)
    actions += retention(seen)
    if pods_of_step(run, current.name) > 1:
        actions.append(Apply(SERVICES, build_service(run)))
    job = build_job(run, step=current.name, attempt=number, defaults=policy.defaults)
    actions.append(Create(JOBS, job))

    first_step = reached(current.name, status.checkpoint) if is_train(current.name) else None
    entered = books.enter(current, attempt=number, job=job["metadata"]["name"], at=seen.now, first_step=first_step)
    steps = tuple(entered if s.name == current.name else s for s in status.steps or ())
    status = status.model_copy(
        update={
            "steps": list(steps),
            "restarts": books.restarts(steps),
            "start_time": status.start_time or rfc3339(seen.now),
            "active_since": status.active_since or rfc3339(seen.now),
        }
    )
    if job["spec"].get("suspend"):
        return _finish(seen, status, QUEUED.standing, actions=tuple(actions), requeue_after=left)
    again = f", attempt {number}" if number > 1 else ""
    standing = Standing(State.PENDING, Reason.PENDING, f"starting {current.name}{again}")
    return _finish(
        seen, status, standing, actions=tuple(actions), requeue_after=_soonest(left, WAITING_RECHECK_SECONDS[0])
    )


def _amend(status: TrainingRunStatus, step: StepStatus, **changes: Any) -> TrainingRunStatus:
    amended = books.amend(step, **changes)
    return status.model_copy(update={"steps": [amended if s.name == step.name else s for s in status.steps or ()]})


def _suspended_message(status: TrainingRunStatus) -> str:
    if status.checkpoint is not None:
        return f"suspended; it goes on from step {status.checkpoint.step} when spec.suspend is false"
    return "suspended; it starts when spec.suspend is false"


def _stop_the_clock(seen: Observed, status: TrainingRunStatus) -> TrainingRunStatus:
    since = parse_time(status.active_since)
    if since is None:
        return status
    spent = (status.active_seconds or 0) + round((seen.now - since).total_seconds())
    return status.model_copy(update={"active_seconds": max(0, spent), "active_since": None})


def _deadline_left(seen: Observed, status: TrainingRunStatus) -> float | None:
    """Seconds until activeDeadlineSeconds; None without one."""
    limit = seen.run.spec.active_deadline_seconds
    if limit is None:
        return None
    since = parse_time(status.active_since)
    active = (status.active_seconds or 0) + ((seen.now - since).total_seconds() if since else 0.0)
    return limit - active


def _exceed_deadline(
    seen: Observed, status: TrainingRunStatus, current: StepStatus, actions: tuple[Action, ...]
) -> Plan:
    limit = seen.run.spec.active_deadline_seconds
    text = f"spec.activeDeadlineSeconds of {limit} was reached during {current.name}; checkpoints are kept"
    return _fail(
        seen,
        status,
        reason=Reason.DEADLINE_EXCEEDED,
        message=text,
        step=current.name,
        hint="raise it in a new run and set checkpoints.resumeFrom to this one",
        actions=actions,
    )


def _recheck(seen: Observed, job: JobView) -> float:
    shortest, longest = WAITING_RECHECK_SECONDS
    return min(longest, max(shortest, (seen.now - job.created).total_seconds() / 4))


def _soonest(*seconds: float | None) -> float | None:
    return min((s for s in seconds if s is not None), default=None)
