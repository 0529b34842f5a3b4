"""The decision: from what is there to what is to be done. Pure.

The planner never looks anything up. Where a decision needs something that costs a request and is not needed most of the
time (do the claims exist? what do the Events say?), the plan comes back with a question; the shell answers it and plans
again. Applying a plan and planning again gives an empty plan, whatever moment the operator died at in between.

What concerns the run as a whole (it has ended, is told to stop, is out of time) is decided first. Then every open step is
looked at by itself, as if there were no other, and what each of them asks for is put together. Which steps are open, the
ledger says; when an attempt follows another, `retry.py`; how a run ends, `ending.py`.
"""

from dataclasses import dataclass, replace

from trainyard.api import names
from trainyard.api.conditions import Reason, State
from trainyard.api.duration import duration
from trainyard.api.progress import ExportRecord
from trainyard.api.run.exports import Export
from trainyard.api.run.status import RollbackStatus, StepStatus
from trainyard.api.steps import is_train, phase_of, step_named
from trainyard.api.texts import one_line
from trainyard.controller.clock import rfc3339
from trainyard.controller.kube.resources import JOBS, SERVICES
from trainyard.controller.manifests.job import build_job, build_service, pods_of_step, referenced_secrets
from trainyard.controller.runs import budget, exports, ledger, quota, retry, rollback, sidecars, yielding
from trainyard.controller.runs import told as words
from trainyard.controller.runs.actions import Action, Create
from trainyard.controller.runs.case import Case, Work
from trainyard.controller.runs.cost import held, worked
from trainyard.controller.runs.ending import (
    Plan,
    after_the_end,
    ask,
    cancel,
    conclude,
    exceed_deadline,
    finish,
    give_up,
    stop_others,
)
from trainyard.controller.runs.exports import settle
from trainyard.controller.runs.observed import Observed, Policy, Question
from trainyard.controller.runs.phases import reached
from trainyard.controller.runs.pods import others
from trainyard.controller.runs.prerequisites import dying, missing, obstacle, retention
from trainyard.controller.runs.progress import learn
from trainyard.controller.runs.publish import publish, restore
from trainyard.controller.runs.status import Standing, is_finished
from trainyard.controller.runs.views import JobView, parse_time
from trainyard.controller.runs.waiting import QUEUED, needs_events, needs_queue, why_waiting

STALLED_RECHECK_SECONDS = 20.0
"""Things outside the run (a claim, a Secret) may appear without an event that reaches us."""
WAITING_RECHECK_SECONDS = (5.0, 60.0)
"""While a pod waits, because Events are not watched: soon at first, then rarer and rarer."""
PUBLISH_RECHECK_SECONDS = 0.5
"""Until what was written for an export is read again."""
YIELDING_RECHECK_SECONDS = 1.0
"""Until the pods of a Deployment are looked for again, which are not watched."""
USED_UP_RECHECK_SECONDS = 300.0
"""A month ends without an event, and so does the deletion of another run."""
CANCEL_REASON_LIMIT = 1024
"""Characters. An annotation may have 256 thousand."""


def plan(seen: Observed, policy: Policy) -> Plan:
    """Decide."""
    if is_finished(seen.status):
        return _roll_back(seen, policy) or after_the_end(seen)
    if not seen.fresh and not seen.knows(Question.CHILDREN):
        return ask(seen.status, Question.CHILDREN)
    books = ledger.book(seen)
    books, status = settle(seen, books, learn(seen, books))
    case = Case(seen, policy, books, status)
    if wanted := _look_closer(case):
        return wanted
    decided = _decide(case)
    if decided.questions or not (released := sidecars.released(seen, books.steps)):
        return decided
    return replace(decided, actions=(*released, *decided.actions))


def _decide(case: Case) -> Plan:
    if not case.open:
        return conclude(case)
    return give_up(case) or _stop(case) or _skip(case) or _time_out(case) or budget.hold(case) or _go_on(case)


# The run as a whole


def _look_closer(case: Case) -> Plan | None:
    """What belongs to the run is brought in line at an edit, made when a queue lets a Job go, and may be on its way out."""
    seen = case.seen
    if seen.knows(Question.PREREQUISITES):
        return None
    due = any(case.edited or case.admitted(work) for work in case.working)
    dying = bool(seen.dying_claims) and any(claim.name in seen.dying_claims for claim in seen.claims)
    return ask(case.status, Question.PREREQUISITES) if due or dying else None


def _stop(case: Case) -> Plan | None:
    """Suspend or cancel, if the run is told to: first its pods save their state and go."""
    seen = case.seen
    if not seen.told_to_stop and not case.over_budget:
        return None
    if case.working:
        stopped = [ledger.amend(work.step, reason=Reason.SUSPENDED.value) for work in case.working]
        verb = "cancelling" if seen.cancel is not None else "suspending" if seen.told_to_stop else budget.over(case)
        standing = Standing(State.PENDING, Reason.SUSPENDING, f"{verb}: waiting for the pod to save its state and stop")
        return finish(case.with_steps(stopped), standing, actions=(*retention(seen), *stop_others(case)))
    if left := seen.left_behind():
        return finish(case, _outlived(left[0].name), requeue_after=STALLED_RECHECK_SECONDS)
    if seen.cancel is not None:
        why = one_line(seen.cancel, limit=CANCEL_REASON_LIMIT) or "no reason was given"
        return cancel(case, reason=Reason.CANCELLED, message=f"cancelled: {why}")
    return _skip(case) or _suspend(case)


def _suspend(case: Case) -> Plan:
    if any(pod.live or pod.terminating for pod in case.seen.pods):
        # Its container may have ended, and the Job with it, while the kubelet still cleans up: the GPU is free after that.
        standing = Standing(State.PENDING, Reason.SUSPENDING, "suspending: waiting for the pod to be gone")
        return finish(case, standing, requeue_after=STALLED_RECHECK_SECONDS)
    since = parse_time(case.status.active_since)
    if since is not None:
        spent = (case.status.active_seconds or 0) + round((case.seen.now - since).total_seconds())
        case = case.with_status(active_seconds=max(0, spent), active_since=None)
    checkpoint = case.status.checkpoint
    ahead = "starts" if checkpoint is None else f"goes on from step {checkpoint.step}"
    if case.seen.run.spec.suspend:
        message, reason = f"suspended; it {ahead} when spec.suspend is false", Reason.SUSPENDED
    else:
        message, reason = f"{budget.over(case)}; it {ahead} when spec.cost.limit is raised", Reason.COST_LIMIT
    return finish(case, Standing(State.SUSPENDED, reason, message))


def _skip(case: Case) -> Plan | None:
    """End it before its first training, if the data are those of the last success."""
    known, status = case.seen.trained_already, case.status
    if known is None or status.dataset is None or status.dataset.digest != known or case.seen.left_behind():
        return None
    if any(is_train(s.name) and s.attempts for s in status.steps or ()):
        return None
    if not any(is_train(work.step.name) for work in case.open):
        return None
    text = "nothing new to train: the prepared data are those of the last successful run"
    return cancel(case, reason=Reason.UNCHANGED, message=text)


def _time_out(case: Case) -> Plan | None:
    """Fail at activeDeadlineSeconds, once what is on its way out already has gone."""
    if case.seconds_left is None or case.seconds_left > 0:
        return None
    leaving = any(work.job.terminating for work in case.open if work.job)
    outlived = len(case.working) < len(case.open) and case.seen.left_behind()
    return None if leaving or outlived else exceed_deadline(case)


def _roll_back(seen: Observed, policy: Policy) -> Plan | None:
    """Take the promotion back, where somebody asks for that: the one step that a run may have after its end."""
    request = rollback.wanted(seen)
    if request is None:
        return None
    if seen.status.rollback != request and (why := rollback.refusal(seen)):
        return Plan(rollback.noted(seen, request.model_copy(update={"state": "Failed", "step": None, "message": why})))
    if not seen.knows(Question.CHILDREN):
        return ask(seen.status, Question.CHILDREN)
    inner = rollback.alone(seen, request)
    books = ledger.book(inner)
    case = Case(inner, policy, books, inner.status.model_copy(update={"steps": list(books.steps)}))
    if not case.open:
        return _restore(seen, request, books.steps[0])
    work = case.open[0]
    part = _attend(case, work, work.job) if work.job else _prepare(case, work.step)
    if part.questions:
        return ask(seen.status, *part.questions)
    actions = (*(missing(inner, case.status) if part.supplies else ()), *part.actions)
    return Plan(rollback.noted(seen, request, part.step), actions, requeue_after=part.requeue_after)


def _restore(seen: Observed, request: RollbackStatus, step: StepStatus) -> Plan:
    """The end of a rollback: what the operator has written by itself goes back to what it was."""
    mine = {name: export for name, export in seen.run.exports.items() if export.row.by_operator}
    if step.state != "Succeeded" or not mine:
        return Plan(rollback.ended(seen, request, step))
    if not seen.knows(Question.PUBLISHED):
        return ask(seen.status, Question.PUBLISHED)
    parts = [
        restore(one, seen.published[name], values=exports.values(seen.run, seen.status, one), run=seen.run.uid)
        for name, one in mine.items()
    ]
    if faults := [part.fault for part in parts if part.fault]:
        failed = request.model_copy(update={"state": "Failed", "message": words.fault("; ".join(faults))})
        return Plan(rollback.noted(seen, failed, step))
    actions = tuple(action for part in parts for action in part.actions)
    if any(part.more for part in parts):
        return Plan(rollback.noted(seen, request, step), actions, requeue_after=PUBLISH_RECHECK_SECONDS)
    return Plan(rollback.ended(seen, request, step), actions)


# One open step


@dataclass(frozen=True)
class Part:
    """What one open step asks for, and how the run stands as far as this step goes."""

    step: StepStatus
    standing: Standing | None = None
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    questions: frozenset[Question] = frozenset()
    supplies: bool = False
    """Its pod may need what the run has to make for it: Secret and claims."""
    begins: bool = False
    """Its attempt is entered now."""
    publishes: bool = False
    """The operator has done it by itself, or has failed to, and that is entered now."""
    told: ExportRecord | None = None
    """What it leaves then."""


def _go_on(case: Case) -> Plan:
    parts = [_attend(case, work, work.job) if work.job else _prepare(case, work.step) for work in case.open]
    if asked := frozenset[Question]().union(*(part.questions for part in parts)):
        return ask(case.status, *asked)
    seen, status, begins = case.seen, case.status, any(part.begins for part in parts)
    actions: list[Action] = []
    if any(part.supplies for part in parts):
        actions += missing(seen, status)
    if begins or case.working:
        actions += retention(seen)
    for part in parts:
        actions += [action for action in part.actions if action not in actions]
    if begins:
        since = rfc3339(seen.now)
        times = {"start_time": status.start_time or since, "active_since": status.active_since or since}
        case = case.with_steps((part.step for part in parts), **times)
    if published := [part for part in parts if part.publishes]:
        case = case.with_steps(part.step for part in published)
        told = {part.step.name: part.told for part in published if part.told is not None}
        case = replace(case, status=exports.described(seen.run, case.status, told=told))
    left = case.seconds_left if case.seconds_left is not None and case.seconds_left > 0 else None
    spending = held(case.status.steps or ())
    broke = case.budget_seconds / spending if case.budget_seconds is not None and spending else None
    wake = min((s for s in (left, broke, *(part.requeue_after for part in parts)) if s is not None), default=None)
    standing = _together([part.standing for part in parts if part.standing is not None])
    return finish(case, standing, actions=tuple(actions), requeue_after=wake)


def _together(standings: list[Standing]) -> Standing:
    """How the run stands: as the first step that is at work, else as the first of all; with what is to be said of each."""
    first = next((s for s in standings if s.state is not State.PENDING), standings[0])
    if len(standings) == 1:
        return first
    message = "; ".join(s.message for s in standings)
    return Standing(first.state, first.reason, message, stalled=all(s.stalled for s in standings))


def _attend(case: Case, work: Work, job: JobView) -> Part:
    """A step whose Job is under way."""
    seen, pod, step = case.seen, work.pod, work.step

    def part(
        state: State,
        reason: Reason,
        message: str,
        *,
        stalled: bool = False,
        again: float | None = None,
        supplies: bool = False,
    ) -> Part:
        if endangered := ", ".join(dying(seen)):
            reason = Reason.MISSING_CLAIM
            message += f"; PersistentVolumeClaim {endangered} is being deleted and goes with the run's last pod: copy what is to be kept"
        if job.orphaned:
            message += f"; Job {job.name} has lost its owner reference and will stay when the run is deleted"
        standing = Standing(state, reason, message, stalled=stalled)
        return Part(step, standing, requeue_after=again, supplies=supplies or case.admitted(work))

    if job.terminating:
        standing = Standing(State.PENDING, Reason.PENDING, f"waiting for Job {job.name}, which was deleted, to be gone")
        return Part(step, standing)
    if needs_events(job, pod, seen.now) and not seen.knows(Question.EVENTS):
        return Part(step, questions=frozenset({Question.EVENTS}))
    if pod is not None and pod.unschedulable and not seen.knows(Question.NODES):
        return Part(step, questions=frozenset({Question.NODES}))
    queued = names.QUEUE_LABEL in seen.run.labels
    if queued and needs_queue(job, seen.now) and not seen.knows(Question.QUEUE):
        return Part(step, questions=frozenset({Question.QUEUE}))
    shortest, longest = WAITING_RECHECK_SECONDS
    soon = min(longest, max(shortest, (seen.now - job.created).total_seconds() / 4))
    if case.admitted(work) and (obstructed := obstacle(seen, case.status)):
        return part(State.PENDING, obstructed.reason, obstructed.message, stalled=obstructed.stalled, again=soon)
    rest = others(job, pod, seen.pods_of(job))
    about, placement = seen.about(job), seen.run.spec.placement
    if wait := why_waiting(job, pod, now=seen.now, about=about, queued=queued, placement=placement):
        # A queue may hold a Job for days; once it is known who listens, the event of its release is all there is to wait for.
        unasked = queued and not seen.knows(Question.QUEUE)
        again = soon if unasked or not job.suspended else None
        # What cannot be mounted may be the run's own Secret, deleted after the Job was made and before its pod was there.
        unmounted = wait.reason is Reason.VOLUME and not work.started
        if unmounted and not seen.knows(Question.PREREQUISITES):
            return Part(step, questions=frozenset({Question.PREREQUISITES}))
        supplies = unmounted and obstacle(seen, case.status) is None
        message = wait.message + rest
        return part(State.PENDING, wait.reason, message, stalled=wait.hopeless, again=again, supplies=supplies)
    if not work.started:
        where = f" on {pod.node}" if pod and pod.node else ""
        return part(State.PENDING, Reason.PENDING, f"starting {step.name}{where}{rest}", again=soon)
    row, phase = step_named(step.name), phase_of(step.name)
    again = sidecars.seconds_left(job, seen.pods_of(job), seen.now)
    verb = f"{row.verb} phase {phase}" if phase else row.verb
    nodes = ", ".join(dict.fromkeys(str(p.node) for p in seen.pods_of(job)))
    beside = sidecars.told(seen.pods_of(job)) + _later_than_expected(case, step)
    return part(row.state, row.reason, f"{verb} on {nodes}{beside}", again=again)


def _later_than_expected(case: Case, step: StepStatus) -> str:
    phase = case.seen.run.phase_of(step.name)
    expected = phase.expected_duration_seconds if phase is not None else None
    if expected is None or worked(step, until=case.seen.now) <= expected:
        return ""
    return f"; it takes longer than the expected {duration(expected)}"


def _prepare(case: Case, step: StepStatus) -> Part:
    """A step before an attempt."""
    seen = case.seen
    in_the_way = [pod for pod in seen.left_behind() if not seen.run.may_work_beside(pod.step, step.name)]
    if in_the_way:
        return Part(step, _outlived(in_the_way[0].name), requeue_after=STALLED_RECHECK_SECONDS)
    due = retry.retry_at(step, counted=case.ledger.counted_with(step), policy=case.policy)
    last = ledger.last_attempt(step)
    if due is not None and due > seen.now and last is not None:
        why = last.message or last.reason or "it failed"
        standing = Standing(State.PENDING, Reason.RETRYING, f"{step.name} is tried again at {rfc3339(due)}: {why}")
        return Part(step, standing, requeue_after=(due - seen.now).total_seconds())
    if is_train(step.name) and quota.of(seen, case.policy.monthly_gpu_hours):
        if not seen.knows(Question.USED):
            return Part(step, questions=frozenset({Question.USED}))
        if used_up := quota.exceeded(seen, case.policy.monthly_gpu_hours):
            return Part(step, used_up, requeue_after=USED_UP_RECHECK_SECONDS)
    if (export := seen.run.exports.get(step.name)) is not None and export.row.by_operator:
        return _publish(case, step, export)
    outside = bool(referenced_secrets(seen.run)) or any(c.claim is None or c.claim.claim_name for c in seen.claims)
    if (not seen.fresh or outside) and not seen.knows(Question.PREREQUISITES):
        return Part(step, questions=frozenset({Question.PREREQUISITES}))
    if obstructed := obstacle(seen, case.status):
        return Part(step, obstructed, requeue_after=STALLED_RECHECK_SECONDS)
    return _begin(case, step, number=(last.number if last else 0) + 1)


def _begin(case: Case, step: StepStatus, *, number: int) -> Part:
    """The next attempt: its Job, and its entry in the books."""
    seen, run = case.seen, case.seen.run
    if waits := _make_room(seen, step, job=names.job_name(run.name, step.name, number)):
        return waits
    several = pods_of_step(run, step.name) > 1 and seen.prerequisites.service is None
    actions: list[Action] = [Create(SERVICES, build_service(run))] if several else []
    job = build_job(run, step=step.name, attempt=number, defaults=case.policy.defaults)
    actions.append(Create(JOBS, job))
    first = reached(step.name, case.status.checkpoint) if is_train(step.name) else None
    entered = ledger.enter(step, attempt=number, job=job["metadata"]["name"], at=seen.now, first_step=first)
    if job["spec"].get("suspend"):
        return Part(entered, QUEUED.standing, tuple(actions), WAITING_RECHECK_SECONDS[0], begins=True)
    again = f", attempt {number}" if number > 1 else ""
    standing = Standing(State.PENDING, Reason.PENDING, f"starting {step.name}{again}")
    supplies = names.QUEUE_LABEL not in run.labels
    return Part(entered, standing, tuple(actions), WAITING_RECHECK_SECONDS[0], supplies=supplies, begins=True)


def _make_room(seen: Observed, step: StepStatus, *, job: str) -> Part | None:
    """What is to be done before a Job that gets devices may be made; None where nothing is in its place."""
    if not (seen.run.spec.placement.yield_from and step_named(step.name).gets_devices):
        return None
    if not seen.knows(Question.YIELDING):
        return Part(step, questions=frozenset({Question.YIELDING}))
    room = yielding.make_room(seen.yielding, run=seen.run, job=job)
    if room is None:
        return None
    standing = Standing(State.PENDING, Reason.YIELDING, room.message, stalled=room.stalled)
    again = STALLED_RECHECK_SECONDS if room.stalled else YIELDING_RECHECK_SECONDS
    return Part(step, standing, room.actions, requeue_after=again)


def _publish(case: Case, step: StepStatus, export: Export) -> Part:
    """An export that the operator does itself, without a Job."""
    seen = case.seen
    if not seen.knows(Question.PUBLISHED):
        return Part(step, questions=frozenset({Question.PUBLISHED}))
    found = publish(
        export,
        seen.published[step.name],
        values=exports.values(seen.run, case.status, export),
        namespace=seen.run.namespace,
        run=seen.run.uid,
    )
    standing = Standing(State.EXPORTING, Reason.EXPORTING, f"{step.name}: writing {found.uri}")
    if found.more:
        return Part(step, standing, found.actions, requeue_after=PUBLISH_RECHECK_SECONDS)
    if found.fault:
        return Part(ledger.fail_at_once(step, found.fault, at=seen.now), standing, requeue_after=0.0, publishes=True)
    told = ExportRecord(uri=found.uri, digest=found.digest)
    done = ledger.succeed_at_once(step, at=seen.now)
    return Part(done, standing, found.actions, requeue_after=0.0, publishes=True, told=told)


def _outlived(pod: str) -> Standing:
    # Two pods of one run must never write to the same volume, and a GPU is not free before its pod is gone.
    return Standing(State.PENDING, Reason.PENDING, f"waiting for pod {pod}, whose Job is gone, to end")
