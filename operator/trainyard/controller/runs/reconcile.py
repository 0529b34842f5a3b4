"""One look at one run: read it, ask the planner, carry the plan out, write the status.

The order is what makes a crash harmless. Children come first and have names that follow from the run, so that a second
try meets what the first one made; the status comes last and only when it changed. Numbers that merely move (step, loss)
are written at most once per interval; a change of state is written at once.

While many new runs wait, the first status of a run waits too: its Job is there already, and the next run's Job is worth
more than a line about this one. Nothing is lost with a process that dies in between, see above.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import ValidationError

from trainyard.api.conditions import Reason, State
from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.names import APPROVED_ANNOTATION, CANCEL_ANNOTATION, ROLLBACK_ANNOTATION, SKIP_IF_DATASET_ANNOTATION
from trainyard.api.progress import ProgressRecord
from trainyard.api.run.status import AlertStatus, TrainingRunStatus
from trainyard.api.steps import export_step
from trainyard.controller.alerts.edges import with_told
from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import DEPLOYMENTS, JOBS, PVCS, TRAININGRUNS, identified
from trainyard.controller.loop.subjects import Key, Recorder, Subjects
from trainyard.controller.manifests.metadata import RunRef
from trainyard.controller.reports.pacing import Pace
from trainyard.controller.runs import told
from trainyard.controller.runs.actions import Action, Create, Delete, Patch
from trainyard.controller.runs.announce import notices
from trainyard.controller.runs.ending import Plan
from trainyard.controller.runs.observe import answer, refused
from trainyard.controller.runs.observed import Observed, Policy
from trainyard.controller.runs.plan import plan
from trainyard.controller.runs.publish import Found
from trainyard.controller.runs.status import Standing, is_finished, stand

log = logging.getLogger(__name__)

ALREADY_THERE_RECHECK_SECONDS = 5.0
LOOKS_AT_WHAT_IS_THERE = 4
"""In one reconcile: the run's Secret and its Job may both be there already, of an earlier look or of somebody else."""
LOOK_AFTER_LATE_STATUS_SECONDS = 0.2
"""The pick that writes a postponed status reads nothing, so what events have said meanwhile is looked at after it."""


class ProgressSource(Protocol):
    """Newest progress by run uid."""

    def get(self, uid: str) -> ProgressRecord | None: ...
    def forget(self, uid: str) -> None: ...


class Tokens(Protocol):
    """Bearer tokens of runs."""

    def for_run(self, key: Key, uid: str) -> str: ...


class Alerts(Protocol):
    """Tells others how runs fare."""

    def told(self, uid: str) -> list[AlertStatus]: ...
    def consider(self, run: RunRef, status: TrainingRunStatus) -> float | None: ...
    def forget(self, uid: str) -> None: ...


class Curves(Protocol):
    """Keeps what was reported."""

    def ended(self, uid: str) -> None: ...
    def forget(self, uid: str) -> None: ...


class Watcher(Protocol):
    """Learns how runs stand and of every written status, for metrics."""

    def run_known(self, run: RunRef, status: TrainingRunStatus) -> None: ...
    def status_written(
        self, namespace: str, name: str, old: TrainingRunStatus, new: TrainingRunStatus, run: RunRef | None
    ) -> None: ...
    def run_gone(self, namespace: str, name: str) -> None: ...


@dataclass(frozen=True)
class _Late:
    """A first status that is written when no new run waits any more."""

    run: Mapping[str, Any]
    old: TrainingRunStatus
    new: TrainingRunStatus


class Reconciler:
    """Brings runs one step closer to what their specs say."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        policy: Policy,
        progress: ProgressSource,
        pace: Pace,
        tokens: Tokens,
        events: Recorder,
        watcher: Watcher,
        clock: Clock,
        alerts: Alerts | None = None,
        curves: Curves | None = None,
        crowded: Callable[[], bool] = lambda: False,
        take_unseen: Callable[[Key], Mapping[str, Any] | None] = lambda key: None,
        dying_claims: Callable[[str], frozenset[str]] = lambda namespace: frozenset(),
        taking: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        """`crowded` tells whether new runs wait to be looked at; `take_unseen` and `dying_claims` are the inbox's; `taking`
        stands around the write that takes a Deployment down."""
        self._cluster = cluster
        self._policy = policy
        self._progress = progress
        self._pace = pace
        self._tokens = tokens
        self._runs = Subjects(cluster, TRAININGRUNS, events=events, forget=self._gone)
        self._watcher = watcher
        self._clock = clock
        self._alerts = alerts
        self._curves = curves
        self._crowded = crowded
        self._take_unseen = take_unseen
        self._dying_claims = dying_claims
        self._taking = taking
        self._late: dict[Key, _Late] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Returns the seconds after which to look again, or None to wait for an event."""
        namespace, name = key
        if late := self._late.pop(key, None):
            try:
                await self._put(late.run, late.old, late.new)
                return LOOK_AFTER_LATE_STATUS_SECONDS
            except (errors.Conflict, errors.NotFound, errors.Invalid):
                log.info("the run has changed meanwhile, looking again", extra={"run": name, "namespace": namespace})
        raw = await self._runs.get(key, self._take_unseen(key))
        if raw is None:
            self._watcher.run_gone(namespace, name)
            return None  # children die with their owner
        try:
            run = parse_run(raw)
        except InvalidManifest as invalid:
            return await self._refuse(raw, [str(f) for f in invalid.faults], reason=Reason.INVALID_SPEC)
        seen = Observed(
            run=RunRef.of(raw, run),
            generation=raw["metadata"]["generation"],
            status=told.read_status(raw.get("status")),
            now=self._clock.now(),
            # Not an empty status: the API server fills in an observedGeneration that says "not seen yet".
            fresh=not (raw.get("status") or {}).get("conditions"),
            progress=self._progress.get(raw["metadata"]["uid"]),
            cancel=run.metadata.annotations.get(CANCEL_ANNOTATION),
            approved=run.metadata.annotations.get(APPROVED_ANNOTATION),
            rollback=run.metadata.annotations.get(ROLLBACK_ANNOTATION),
            trained_already=run.metadata.annotations.get(SKIP_IF_DATASET_ANNOTATION),
            token=self._tokens.for_run((raw["metadata"]["namespace"], raw["metadata"]["name"]), raw["metadata"]["uid"]),
            dying_claims=self._dying_claims(namespace),
        )
        if seen.progress is not None and is_finished(seen.status):
            self._forget_numbers(seen.run.uid)
        self._watcher.run_known(seen.run, seen.status)
        again = self._owe(seen.run, seen.status)
        try:
            known, decided = await self._follow_through(seen)
        except errors.AlreadyExists as error:
            log.info("an object exists already, looking again", extra={"run": name, "object": str(error.request)})
            kind = error.request.resource.removesuffix("s")
            text = f"{kind} {error.request.name} exists, and nothing tells whose it is; delete or rename it"
            await self._refuse(raw, [text], reason=Reason.NAME_CONFLICT)
            return ALREADY_THERE_RECHECK_SECONDS
        except errors.Invalid as error:
            return await self._refuse(raw, [_rejection(error)], reason=Reason.INVALID_SPEC)
        except errors.Forbidden as error:
            if error.namespace_terminating:
                return None
            reason = Reason.QUOTA if error.exceeded_quota else Reason.FORBIDDEN
            await self._refuse(raw, [f"the cluster refuses {error.request}: {error.message}"], reason=reason)
            return 30.0
        if seen.fresh and self._crowded():
            self._late[key] = _Late(identified(raw), seen.status, decided.status)
            return 0.0  # not urgent: after all new runs
        if self._alerts is not None and (told_since := self._alerts.told(seen.run.uid)):
            decided = replace(decided, status=with_told(decided.status, told_since))
        return sooner(again, await self._write(raw, known, decided))

    def _owe(self, run: RunRef, status: TrainingRunStatus) -> float | None:
        """Others are told what a status says once it has been written, never before."""
        return None if self._alerts is None else self._alerts.consider(run, status)

    async def _follow_through(self, seen: Observed) -> tuple[Observed, Plan]:
        """Decide and do it. An object that is there already was not in the picture: once more, with it in view.

        An earlier look may have made it and died before it could say so; or somebody else has.
        """
        for more in reversed(range(LOOKS_AT_WHAT_IS_THERE)):
            try:
                known, decided = await self._decide(seen)
                await self._carry_out(seen, decided.actions)
                return known, decided
            except errors.AlreadyExists as error:
                if not more:
                    raise
                met = seen.met | ({str(error.request.name)} if error.request.resource == JOBS.plural else set())
                seen = replace(seen, fresh=False, met=met)
            except _ExportRefused as refusal:
                published = {**seen.published, refusal.step: Found(refusal=refusal.message)}
                return await self._follow_through(replace(seen, published=published))
        raise AssertionError("unreachable")

    async def _decide(self, seen: Observed) -> tuple[Observed, Plan]:
        """The plan, and the picture that it was made from."""
        while (decided := self._plan(seen)).questions:
            for question in decided.questions:
                seen = await answer(self._cluster, seen, question)
        return seen, decided

    def _plan(self, seen: Observed) -> Plan:
        try:
            return plan(seen, self._policy)
        except ValidationError as error:
            if seen.deaf:
                raise
            log.error("what was told fits into no status, leaving it out: %s", error)
            return plan(replace(seen, deaf=True), self._policy)

    async def _carry_out(self, seen: Observed, actions: tuple[Action, ...]) -> None:
        """What a Job needs goes first and side by side, then the Job."""
        first = [a for a in actions if not (isinstance(a, Create) and a.resource is JOBS)]
        done = await asyncio.gather(*(self._do(seen, a) for a in first), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        for action in actions:
            if action not in first:
                await self._do(seen, action)

    async def _do(self, seen: Observed, action: Action) -> None:
        namespace = seen.run.namespace
        match action:
            case Create(resource, body):
                await self._create(resource, namespace, body, seen)
            case Patch(resource, name, body, elsewhere, export):
                try:
                    async with self._taking() if resource is DEPLOYMENTS and not export else nullcontext():
                        await self._cluster.patch(resource, elsewhere or namespace, name, body)
                except (errors.Forbidden, errors.Invalid, errors.NotFound) as error:
                    if not export:
                        raise
                    raise _ExportRefused(export_step(export), refused(error)) from error
            case Delete(resource, name, uid, propagation, grace):
                await self._cluster.delete(
                    resource, namespace, name, uid=uid, propagation=propagation, grace_period=grace
                )

    async def _create(self, resource: Any, namespace: str, body: dict[str, Any], seen: Observed) -> None:
        try:
            await self._cluster.create(resource, namespace, body)
        except errors.AlreadyExists:
            if resource is not PVCS or seen.fresh:
                raise
            # Another run that shares the claim made it a moment ago; its owners are settled at the next look.
        else:
            if resource is JOBS:
                log.info(
                    "job created", extra={"run": seen.run.name, "namespace": namespace, "job": body["metadata"]["name"]}
                )

    async def _write(self, raw: Mapping[str, Any], seen: Observed, decided: Plan) -> float | None:
        old, new = seen.status, decided.status
        if new == old:
            return decided.requeue_after
        uid = seen.run.uid
        if _only_numbers(old, new) and (pause := self._pace.pause(uid)):
            return min(pause, decided.requeue_after or pause)
        try:
            await self._put(raw, old, new, seen.run)
        except errors.Invalid as error:
            log.warning("the status is refused, leaving out what was told: %s", error)
            await self._put_decision(raw, seen)
        self._pace.wrote(uid)
        if is_finished(new):
            self._forget_numbers(uid)
        return sooner(self._owe(seen.run, new), decided.requeue_after)

    async def _put_decision(self, raw: Mapping[str, Any], seen: Observed) -> None:
        """The same without what was told since the last write; if even that is refused, without anything told at all."""
        decision = plan(replace(seen, deaf=True), self._policy).status
        try:
            await self._put(raw, seen.status, decision, seen.run)
        except errors.Invalid:
            await self._put(raw, seen.status, told.left_out(decision), seen.run)

    async def _put(
        self, raw: Mapping[str, Any], old: TrainingRunStatus, new: TrainingRunStatus, run: RunRef | None = None
    ) -> None:
        await self._runs.put(raw, new, notices(old, new))
        self._watcher.status_written(raw["metadata"]["namespace"], raw["metadata"]["name"], old, new, run)

    async def _refuse(self, raw: Mapping[str, Any], faults: list[str], *, reason: Reason) -> float | None:
        """Say what is wrong and wait: for another generation, or for somebody to raise a quota."""
        old = told.read_status(raw.get("status"))
        if is_finished(old):
            return None
        standing = Standing(State.PENDING, reason, "; ".join(faults)[:30000], stalled=True)
        new = stand(old, standing, generation=raw["metadata"]["generation"], now=self._clock.now())
        if new != old:
            await self._put(raw, old, new)
        return None

    def reported(self, key: Key, uid: str) -> None:
        """A pod of this run speaks."""
        self._runs.heard_of(key, uid)

    def _forget_numbers(self, uid: str) -> None:
        self._pace.forget(uid)
        self._progress.forget(uid)
        if self._curves is not None:
            self._curves.ended(uid)

    def _gone(self, uid: str) -> None:
        self._forget_numbers(uid)
        for keeper in (self._alerts, self._curves):
            if keeper is not None:
                keeper.forget(uid)


def sooner(one: float | None, other: float | None) -> float | None:
    """The earlier of two looks that are to come, if any is."""
    return min((seconds for seconds in (one, other) if seconds is not None), default=None)


class _ExportRefused(Exception):
    """The API server does not let the operator write what an export names."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.message = message


def _only_numbers(old: TrainingRunStatus, new: TrainingRunStatus) -> bool:
    """Whether the two differ in nothing but live progress."""
    numbers = {"trainer_status": None, "summary": None, "checkpoint": None, "cost": None}
    return old.model_copy(update=numbers) == new.model_copy(update=numbers)


def _rejection(error: errors.Invalid) -> str:
    return f"the API server refuses {error.request.resource} {error.request.name or ''}: {error.faults}"
