"""One look at one schedule: read it, ask the planner, write down the start, make the runs, write what has become of it.

A start is written down before its first run is made (see `plan`), so this is all that a crash can leave behind: a start
that goes on at the next look, with runs that are found under the names it would have given them.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from pydantic import ValidationError

from trainyard.api.names import CANCEL_ANNOTATION
from trainyard.api.schedule.children import ScheduleRef
from trainyard.api.schedule.status import ScheduleReason, ScheduleState, TrainingScheduleStatus
from trainyard.api.schedule.trainingschedule import SCHEDULE_UID_LABEL, TrainingSchedule
from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import TRAININGRUNS, TRAININGSCHEDULES
from trainyard.controller.loop.subjects import Key, Notice, Object, Recorder, Subjects
from trainyard.controller.runs.views import parse_time
from trainyard.controller.schedules.draft import Cancel, Create, Delete, Plan
from trainyard.controller.schedules.observed import Look, Observed
from trainyard.controller.schedules.plan import plan
from trainyard.controller.schedules.status import Standing, stand
from trainyard.controller.schedules.views import ChildView, controller_uid

log = logging.getLogger(__name__)
Raw = Mapping[str, Any]

LONGEST_SLEEP_SECONDS = 300.0
"""Timers count monotonic time and slots are wall time; where the two drift apart, it is noticed after so long."""
REFUSED_RETRY_SECONDS = 30.0
CHECK_TIME_SECONDS = 600.0
"""`lastCheckTime` alone is written no more often than this; what a look has found is written at once."""


class Sources(Protocol):
    """Looks at what triggers watch, taken in the background."""

    def looks(self, schedule: ScheduleRef) -> Mapping[str, Look]: ...
    def request(self, schedule: ScheduleRef, name: str) -> None: ...
    def forget(self, uid: str) -> None: ...


class Watcher(Protocol):
    """Learns of every written status and every run that was made, for metrics."""

    def schedule_written(
        self, namespace: str, name: str, old: TrainingScheduleStatus, new: TrainingScheduleStatus
    ) -> None: ...
    def schedule_seen(self, namespace: str, name: str) -> None: ...
    def schedule_gone(self, namespace: str, name: str) -> None: ...
    def run_made(self, *, started_by: str, late_seconds: float) -> None: ...


class ScheduleReconciler:
    """Starts runs when their time has come."""

    def __init__(self, *, cluster: Cluster, sources: Sources, events: Recorder, watcher: Watcher, clock: Clock) -> None:
        self._cluster = cluster
        self._sources = sources
        self._schedules = Subjects(cluster, TRAININGSCHEDULES, events=events, forget=sources.forget)
        self._watcher = watcher
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """Returns the seconds after which to look again, or None to wait for an event."""
        namespace, name = key
        raw = await self._schedules.get(key)
        if raw is None:
            self._watcher.schedule_gone(namespace, name)
            return None  # its runs go with it, or stay if it was deleted with --cascade=orphan
        self._watcher.schedule_seen(namespace, name)
        try:
            schedule = _reference(raw)
        except ValidationError as error:
            return await self._refuse(raw, error)
        seen = await self._observe(raw, schedule)
        decided = plan(seen)
        if decided.write_first:
            raw = await self._put(raw, seen, decided)
            seen = replace(seen, status=decided.status)
            decided = plan(seen, may_open=False)
        decided, seen, held = await self._carry_out(raw, seen, decided)
        for trigger in decided.polls:
            self._sources.request(schedule, trigger)
        if _worth_writing(seen.status, decided.status):
            await self._put(raw, seen, decided)
        if held is not None:
            return held
        return (
            LONGEST_SLEEP_SECONDS
            if decided.requeue_after is None
            else min(decided.requeue_after, LONGEST_SLEEP_SECONDS)
        )

    async def _observe(self, raw: Raw, schedule: ScheduleRef) -> Observed:
        return Observed(
            schedule=schedule,
            generation=raw["metadata"]["generation"],
            status=TrainingScheduleStatus.model_validate(raw.get("status") or {}),
            now=self._clock.now(),
            children=await self._children(schedule),
            looks=self._sources.looks(schedule),
        )

    async def _children(self, schedule: ScheduleRef) -> tuple[ChildView, ...]:
        selector = f"{SCHEDULE_UID_LABEL}={schedule.uid}"
        found = await self._cluster.list(TRAININGRUNS, schedule.namespace, label_selector=selector)
        # The label can be written by anybody; whose run it is, the owner reference says.
        return tuple(ChildView.of(run) for run in found if controller_uid(run) == schedule.uid)

    async def _carry_out(self, raw: Raw, seen: Observed, decided: Plan) -> tuple[Plan, Observed, float | None]:
        """Do it. Where runs can never be made, plan again without them; where they cannot be made now, say so and wait."""
        while True:
            refused: dict[str, str] = {}
            for action in decided.actions:
                match action:
                    case Create(body):
                        try:
                            reason = await self._create(seen, body)
                        except errors.Forbidden as error:
                            if error.namespace_terminating:
                                return replace(decided, status=seen.status, notices=()), seen, LONGEST_SLEEP_SECONDS
                            return self._hold(seen, decided, error), seen, REFUSED_RETRY_SECONDS
                        if reason is not None:
                            refused[body["metadata"]["name"]] = reason
                    case Cancel(name, why):
                        await self._cancel(seen.schedule.namespace, name, why)
                    case Delete(name, uid):
                        await self._delete(seen.schedule.namespace, name, uid)
            if not refused:
                return decided, seen, None
            seen = replace(seen, refused={**seen.refused, **refused}, children=await self._children(seen.schedule))
            decided = plan(seen, may_open=False)

    async def _create(self, seen: Observed, body: Object) -> str | None:
        """Make a run. Returns why it can never be made, if so."""
        schedule, metadata = seen.schedule, body["metadata"]
        try:
            await self._cluster.create(TRAININGRUNS, schedule.namespace, body)
        except errors.AlreadyExists:
            there = await self._cluster.get(TRAININGRUNS, schedule.namespace, metadata["name"])
            if there is not None and controller_uid(there) == schedule.uid:
                return None
            return "a TrainingRun of this name exists and does not belong to this schedule; delete or rename it"
        except errors.Invalid as error:
            return f"the API server refuses it: {error.faults}"
        firing = seen.status.firing
        if firing is not None:
            late = (self._clock.now() - datetime.fromisoformat(firing.time)).total_seconds()
            self._watcher.run_made(started_by=firing.started_by, late_seconds=max(0.0, late))
        log.info(
            "run created", extra={"schedule": schedule.name, "namespace": schedule.namespace, "run": metadata["name"]}
        )
        return None

    async def _cancel(self, namespace: str, name: str, why: str) -> None:
        try:
            await self._cluster.patch(
                TRAININGRUNS, namespace, name, {"metadata": {"annotations": {CANCEL_ANNOTATION: why}}}
            )
        except errors.NotFound:
            log.info("the run to be cancelled is gone", extra={"run": name, "namespace": namespace})

    async def _delete(self, namespace: str, name: str, uid: str) -> None:
        try:
            await self._cluster.delete(TRAININGRUNS, namespace, name, uid=uid)
        except errors.Conflict:
            log.info("another run has this name by now", extra={"run": name, "namespace": namespace})

    def _hold(self, seen: Observed, decided: Plan, error: errors.Forbidden) -> Plan:
        """A quota or a policy is in the way: the start stays open, and is tried again."""
        firing = seen.status.firing
        told = (
            f"the start of {firing.time if firing else '?'} waits: the cluster refuses {error.request}: {error.message}"
        )
        status = stand(
            seen.status,
            Standing(ScheduleState.WAITING, ScheduleReason.REFUSED, told[:8000]),
            suspended=seen.schedule.spec.suspend,
            generation=seen.generation,
            now=seen.now,
        )
        notices = () if seen.status.message == status.message else (Notice("Warning", ScheduleReason.REFUSED, told),)
        return replace(decided, status=status, notices=notices)

    async def _refuse(self, raw: Raw, error: ValidationError) -> float | None:
        """A spec that the schema should have refused: an older CRD is installed, or rules were off."""
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        status = TrainingScheduleStatus.model_validate(raw.get("status") or {})
        new = stand(
            status.model_copy(update={"next_schedule_time": None}),
            Standing(ScheduleState.INVALID, ScheduleReason.INVALID_SPEC, told[:8000]),
            suspended=False,
            generation=raw["metadata"]["generation"],
            now=self._clock.now(),
        )
        if new != status:
            await self._schedules.put(raw, new)
        return None

    async def _put(self, raw: Raw, seen: Observed, decided: Plan) -> Raw:
        """Write the status, then tell about it. Returns the object as it is now."""
        written = await self._schedules.put(raw, decided.status, decided.notices)
        metadata = raw["metadata"]
        self._watcher.schedule_written(metadata["namespace"], metadata["name"], seen.status, decided.status)
        return written


def _reference(raw: Raw) -> ScheduleRef:
    parsed = TrainingSchedule.model_validate({k: raw[k] for k in ("apiVersion", "kind", "metadata", "spec")})
    return ScheduleRef.of(raw, parsed)


def _worth_writing(old: TrainingScheduleStatus, new: TrainingScheduleStatus) -> bool:
    """Whether anything has changed but the time of looks that found nothing new."""
    if old == new:
        return False
    if _without_checks(old) != _without_checks(new):
        return True
    before = {t.name: parse_time(t.last_check_time) for t in old.triggers or ()}
    for trigger in new.triggers or ():
        last, now = before.get(trigger.name), parse_time(trigger.last_check_time)
        if now is not None and (last is None or (now - last).total_seconds() >= CHECK_TIME_SECONDS):
            return True
    return False


def _without_checks(status: TrainingScheduleStatus) -> TrainingScheduleStatus:
    bare = [t.model_copy(update={"last_check_time": None}) for t in status.triggers or ()]
    return status.model_copy(update={"triggers": bare})
