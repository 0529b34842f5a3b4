"""How a run ends: well, badly, or on request; and what is left to do when it has ended. Pure.

Terminal is terminal. Whatever still works for the run when it ends is told to stop in the same plan.
"""

from dataclasses import dataclass, replace
from typing import Any

from trainyard.api.conditions import Reason, State
from trainyard.api.run.status import StepStatus, TrainingRunStatus
from trainyard.api.steps import STEP_PROMOTE, export_step, is_export
from trainyard.controller.clock import rfc3339
from trainyard.controller.kube.resources import JOBS
from trainyard.controller.runs import exports, retry, told
from trainyard.controller.runs.actions import Action, Delete
from trainyard.controller.runs.case import Case
from trainyard.controller.runs.columns import summarise
from trainyard.controller.runs.cost import reckoned
from trainyard.controller.runs.ledger import amend, last_attempt
from trainyard.controller.runs.observed import Observed, Question
from trainyard.controller.runs.prerequisites import dying, retention, surroundings
from trainyard.controller.runs.progress import outputs
from trainyard.controller.runs.status import Standing, stand
from trainyard.controller.runs.views import parse_time

PROMOTE_HINT = (
    "it has been sent everywhere, and aliases name the one before it; correct what is wrong and export it in a new run"
)


@dataclass(frozen=True)
class Plan:
    """What to do, in order; then the status. With questions, nothing of it holds yet."""

    status: TrainingRunStatus
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    questions: frozenset[Question] = frozenset()


def ask(status: TrainingRunStatus, *questions: Question) -> Plan:
    """No plan yet: these have to be looked up first."""
    return Plan(status, questions=frozenset(questions))


def finish(case: Case, standing: Standing, **rest: Any) -> Plan:
    """The end of a look: the standing goes into the status, and the printed columns are made of that."""
    status = stand(case.status, standing, generation=case.seen.generation, now=case.seen.now)
    over, now = standing.finished, case.seen.now
    cost = reckoned(case.seen.run.spec, status, prices=case.policy.prices, now=now, over=over)
    status = status.model_copy(update={"cost": cost})
    if case.seen.deaf:
        return Plan(status, **rest)
    status = status.model_copy(update={"summary": summarise(case.seen.run, status, standing.state)})
    return Plan(status, **rest)


def stop_others(case: Case) -> tuple[Action, ...]:
    """Have the pods of all steps that are under way save their state and go."""
    jobs = [work.job for work in case.working if work.job is not None and not work.job.terminating]
    return tuple(Delete(JOBS, job.name, job.uid, "Foreground") for job in jobs)


def _end(case: Case, standing: Standing, **changes: Any) -> Plan:
    now = rfc3339(case.seen.now)
    case = case.with_status(completion_time=now, active_since=None, **changes)
    # Nobody looks at the Jobs of a run that has ended, so what still works is entered as ended here.
    working, reason = {work.step.name for work in case.working}, standing.reason.value
    steps = [s for s in case.status.steps or () if s.name in working]
    case = case.with_steps(amend(s, state="Stopped", reason=reason, completion_time=now) for s in steps)
    plan = finish(case, standing, actions=(*retention(case.seen), *stop_others(case)))
    return replace(plan, requeue_after=_ttl_left(case.seen, plan.status))


def conclude(case: Case) -> Plan:
    """Nothing is left to be worked on."""
    done = {s.name for s in case.ledger.steps if s.state == "Succeeded"}
    never = next((p.name for p in case.ledger.planned if not p.optional and p.name not in done), None)
    if never is not None:
        return fail(
            case, reason=Reason.ERROR, message=f"{never} cannot begin, because a step before it failed", step=never
        )
    spec, dataset = case.seen.run.spec, case.status.dataset
    message = "the spec and the data are fine" if spec.mode == "DryRun" else "done"
    if spec.mode == "Dataset" and dataset is not None:
        message = f"{dataset.records} records built"
    if failed := exports.failed(case.seen.run, case.status):
        text = "; ".join(f"export {one.name} ({one.target}) failed: {one.message}" for one in failed)
        hint = "the trained model is on the volume; correct what is wrong and export it in a new run"
        step = export_step(failed[0].name)
        return fail(case, reason=Reason.EXPORT_FAILED, message=text, step=step, hint=hint)
    if promotion := next((s for s in case.ledger.steps if (s.name, s.state) == (STEP_PROMOTE, "Failed")), None):
        last = last_attempt(promotion)
        text = f"the result could not be promoted: {last.message if last else ''}"
        return fail(case, reason=Reason.EXPORT_FAILED, message=text, step=STEP_PROMOTE, hint=PROMOTE_HINT)
    if given_up := [s.name for s in case.ledger.steps if s.state == "Failed"]:
        message += f", without {', '.join(given_up)}, which failed"
    if skipped := [one for one in case.status.exports or () if one.state == "Skipped"]:
        message += f"; not exported ({', '.join(one.name for one in skipped)}): {skipped[0].message}"
    if gone := dying(case.seen):
        message += f"; PersistentVolumeClaim {', '.join(gone)} is being deleted, and the result goes with it"
    left = None if spec.mode == "DryRun" else outputs(case.seen) | exports.sent_to(case.status)
    return _end(case, Standing(State.SUCCEEDED, Reason.SUCCEEDED, message), outputs=left)


def fail(case: Case, *, reason: Reason, message: str, step: str, hint: str | None = None) -> Plan:
    """Because of this step. What a checkpoint holds stays."""
    text = f"{message} ({hint})" if hint else message
    failed = [s.model_copy(update={"state": "Failed"}) if s.name == step else s for s in case.status.steps or ()]
    failure = told.failure(reason=reason.value, step=step, message=message, hint=hint)
    changes: dict[str, Any] = {"failure": failure, "steps": failed}
    if is_export(step) or step == STEP_PROMOTE:
        changes["outputs"] = outputs(case.seen) | exports.sent_to(case.status)
    return _end(case, Standing(State.FAILED, reason, text), **changes)


def cancel(case: Case, *, reason: Reason, message: str) -> Plan:
    """End it for good without a fault of its own. What a checkpoint holds stays, for another run to go on from."""
    failure = told.failure(reason=reason.value, message=message)
    return _end(case, Standing(State.CANCELLED, reason, message), failure=failure)


def give_up(case: Case) -> Plan | None:
    """Fail, if a step that the run cannot do without is not tried again."""
    counted, limit = case.ledger.counted, case.seen.run.spec.backoff_limit
    for step in (work.step for work in case.open):
        last = last_attempt(step)
        if last is None or last.state != "Failed" or case.ledger.is_optional(step):
            continue
        message, hint = last.message or "it failed", _hint(case, step)
        if retry.is_final(last):
            return fail(case, reason=Reason(str(last.reason)), message=message, step=step.name, hint=hint)
        if retry.is_one_too_many(last, counted=counted, limit=limit):
            times = "once" if counted == 1 else f"{counted} times"
            text = f"{step.name} failed {times}, spec.backoffLimit is {limit}; the last time: {message}"
            return fail(case, reason=Reason.BACKOFF_LIMIT_EXCEEDED, message=text, step=step.name, hint=hint)
    return None


def _hint(case: Case, step: StepStatus) -> str | None:
    outcome = case.ledger.failures.get(step.name)
    return outcome.hint if outcome else None


def exceed_deadline(case: Case) -> Plan:
    """The run has wanted its pods for longer than it may."""
    deadline, current = case.deadline, case.ledger.foremost
    assert deadline is not None
    during = current.name if current else ""
    return fail(
        case,
        reason=Reason.DEADLINE_EXCEEDED,
        message=f"{deadline.field} of {deadline.limit} was reached during {during}; checkpoints are kept",
        step=during,
        hint="raise it in a new run and set checkpoints.resumeFrom to this one",
    )


def after_the_end(seen: Observed) -> Plan:
    """Nothing is created any more. Retention may still change, and one day the Jobs go."""
    status = seen.status
    edited = status.observed_generation != seen.generation
    left = _ttl_left(seen, status)
    clean_up = left is not None and left <= 0
    questions = {Question.CHILDREN} if clean_up else set()
    questions |= {Question.PREREQUISITES} if edited or clean_up else set()
    if not questions <= seen.answered:
        return ask(status, *questions)
    actions: list[Action] = retention(seen) if edited else []
    if clean_up:
        actions += [Delete(JOBS, j.name, j.uid, "Background") for j in seen.jobs]
        actions += surroundings(seen)
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
