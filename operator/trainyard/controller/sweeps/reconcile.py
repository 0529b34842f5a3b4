"""One look at one sweep: read it and its runs, ask the planner, change and make runs, write what has become of it."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from trainyard.api.sweep.children import SweepRef, rungs_of
from trainyard.api.sweep.status import SweepReason, SweepState, TrainingSweepStatus
from trainyard.api.sweep.trainingsweep import SWEEP_UID_LABEL, TrainingSweep
from trainyard.api.sweep.validity import faults
from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import TRAININGRUNS, TRAININGSWEEPS
from trainyard.controller.loop.subjects import Key, Notice, Object, Recorder, Subjects
from trainyard.controller.reports.history import History
from trainyard.controller.schedules.views import controller_uid
from trainyard.controller.sweeps.children import labels
from trainyard.controller.sweeps.metrics import SweepMetrics
from trainyard.controller.sweeps.observed import Adjust, Create, Observed, Plan
from trainyard.controller.sweeps.plan import plan
from trainyard.controller.sweeps.status import Standing, stand
from trainyard.controller.sweeps.trial import measured, noted_rungs, number_of, passed, read_trial, value_at_rung

log = logging.getLogger(__name__)
Raw = Mapping[str, Any]

LONGEST_SLEEP_SECONDS = 300.0
REFUSED_RETRY_SECONDS = 30.0
_ENDS = {"Stopped": "stopped", "Succeeded": "succeeded", "Failed": "failed", "Cancelled": "cancelled"}


class SweepReconciler:
    """Makes trials, stops them and goes on with them."""

    def __init__(
        self, *, cluster: Cluster, history: History, events: Recorder, metrics: SweepMetrics, clock: Clock
    ) -> None:
        """`history` knows what runs have measured at which step."""
        self._cluster = cluster
        self._history = history
        self._sweeps = Subjects(cluster, TRAININGSWEEPS, events=events, forget=self._forget)
        self._metrics = metrics
        self._clock = clock
        self._faults: dict[str, tuple[int, tuple[str, ...]]] = {}  # by uid: generation, what is wrong with it

    def _forget(self, uid: str) -> None:
        self._faults.pop(uid, None)

    async def reconcile(self, key: Key) -> float | None:
        """Returns the seconds after which to look again, or None to wait for an event."""
        raw = await self._sweeps.get(key)
        if raw is None:
            self._metrics.gone(*key)
            return None  # its runs go with it, or stay if it was deleted with --cascade=orphan
        self._metrics.seen(*key)
        try:
            parsed = TrainingSweep.model_validate({k: raw[k] for k in ("apiVersion", "kind", "metadata", "spec")})
        except ValidationError as error:
            await self._refuse(raw, error)
            return None
        seen = await self._observe(raw, SweepRef.of(raw, parsed))
        decided, sleep = await self._carry_out(seen, await _plan(seen))
        if decided.status != seen.status:
            await self._sweeps.put(raw, decided.status, decided.notices)
            self._count(seen.status, decided.status)
        return sleep

    # What is there

    async def _observe(self, raw: Raw, sweep: SweepRef) -> Observed:
        generation = raw["metadata"]["generation"]
        known = self._faults.get(sweep.uid)
        if known is None or known[0] != generation:
            known = self._faults[sweep.uid] = (generation, tuple(faults(sweep)))
        seen = Observed(
            sweep=sweep,
            generation=generation,
            status=TrainingSweepStatus.model_validate(raw.get("status") or {}),
            now=self._clock.now(),
            faults=known[1],
        )
        return await self._with_trials(seen)

    async def _with_trials(self, seen: Observed) -> Observed:
        sweep, trials, noted = seen.sweep, {}, {}
        selector = f"{SWEEP_UID_LABEL}={sweep.uid}"
        for run in await self._cluster.list(TRAININGRUNS, sweep.namespace, label_selector=selector):
            number = number_of(sweep.name, run)
            # The label can be written by anybody; whose run it is, the owner reference says.
            if number is None or controller_uid(run) != sweep.uid:
                continue
            reached = await self._reached(sweep, run)
            trials[number] = read_trial(number, run, metric=sweep.spec.objective.metric, reached=reached)
            noted[number] = frozenset(noted_rungs(run))
        return replace(seen, trials=trials, noted=noted)

    async def _reached(self, sweep: SweepRef, run: Raw) -> dict[int, float | None]:
        """The rungs that the run has passed since the last look, with its value there."""
        new = passed(run, rungs_of(sweep.spec))
        if not new:
            return {}
        metadata, metric = run["metadata"], sweep.spec.objective.metric
        points = (await self._history.points((metadata["namespace"], metadata["name"]), metadata["uid"])).points
        # Curves of the last minutes are lost with an operator that is killed; the newest value is near then.
        newest = measured(run.get("status") or {}, metric)
        at_rungs = {rung: value_at_rung(points, metric, rung) for rung in new}
        return {rung: newest if value is None else value for rung, value in at_rungs.items()}

    # What is done

    async def _carry_out(self, seen: Observed, decided: Plan) -> tuple[Plan, float]:
        """Do it. Where a run can never be made, plan again without it; where it cannot be made now, say so and wait."""
        while True:
            refused: dict[int, str] = {}
            for action in decided.actions:
                match action:
                    case Adjust(name, patch):
                        await self._adjust(seen.sweep.namespace, name, patch)
                    case Create(number, body):
                        try:
                            reason = await self._create(seen.sweep, number, body)
                        except errors.Forbidden as error:
                            if error.namespace_terminating:
                                return replace(decided, status=seen.status, notices=()), LONGEST_SLEEP_SECONDS
                            return self._hold(seen, decided, body, error), REFUSED_RETRY_SECONDS
                        if reason is not None:
                            refused[number] = reason
            if not refused:
                return decided, LONGEST_SLEEP_SECONDS
            seen = await self._with_trials(replace(seen, refused={**seen.refused, **refused}))
            decided = await _plan(seen)

    async def _create(self, sweep: SweepRef, number: int, body: Object) -> str | None:
        """Make a run. Returns why it can never be made, if so."""
        name = body["metadata"]["name"]
        try:
            await self._cluster.create(TRAININGRUNS, sweep.namespace, body)
        except errors.AlreadyExists:
            there = await self._cluster.get(TRAININGRUNS, sweep.namespace, name)
            if there is None or controller_uid(there) != sweep.uid:
                return "a TrainingRun of this name exists and does not belong to this sweep; delete or rename it"
            # Ours, and not found by its labels: somebody has edited them.
            await self._adjust(sweep.namespace, name, {"metadata": {"labels": labels(sweep, number)}})
            return None
        except errors.Invalid as error:
            return f"the API server refuses it: {error.faults}"
        self._metrics.trial("created")
        log.info("run created", extra={"sweep": sweep.name, "namespace": sweep.namespace, "run": name})
        return None

    async def _adjust(self, namespace: str, name: str, patch: Object) -> None:
        try:
            await self._cluster.patch(TRAININGRUNS, namespace, name, patch)
        except errors.NotFound:
            log.info("the trial's run is gone", extra={"run": name, "namespace": namespace})

    def _hold(self, seen: Observed, decided: Plan, body: Object, error: errors.Forbidden) -> Plan:
        """A quota or a policy is in the way: it is tried again."""
        told = f"{body['metadata']['name']} waits: the cluster refuses {error.request}: {error.message}"
        status = stand(
            decided.status.model_copy(update={"trials": seen.status.trials, "trial_counts": seen.status.trial_counts}),
            Standing(SweepState.WAITING, SweepReason.REFUSED, told[:8000]),
            suspended=seen.sweep.spec.suspend,
            generation=seen.generation,
            now=seen.now,
        )
        notices = (
            () if seen.status.message == status.message else (Notice("Warning", SweepReason.REFUSED, told[:1000]),)
        )
        return replace(decided, status=status, notices=notices)

    async def _refuse(self, raw: Raw, error: ValidationError) -> None:
        """A spec that the schema should have refused: an older CRD is installed, or rules were off."""
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        status = TrainingSweepStatus.model_validate(raw.get("status") or {})
        new = stand(
            status,
            Standing(SweepState.INVALID, SweepReason.INVALID_SPEC, told[:8000]),
            suspended=False,
            generation=raw["metadata"]["generation"],
            now=self._clock.now(),
        )
        if new != status:
            await self._sweeps.put(raw, new)

    def _count(self, old: TrainingSweepStatus, new: TrainingSweepStatus) -> None:
        before = {entry.number: entry.state for entry in old.trials or ()}
        for entry in new.trials or ():
            if entry.state != before.get(entry.number) and entry.state in _ENDS:
                self._metrics.trial(_ENDS[entry.state])


async def _plan(seen: Observed) -> Plan:
    """In a thread: a proposal after hundreds of trials takes a second of arithmetic, and others use the loop."""
    return await asyncio.to_thread(plan, seen)
