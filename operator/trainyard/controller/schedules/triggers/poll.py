"""Having the sources of triggers looked at, beside the reconciles: a slow source holds up nobody.

A look is kept in memory only. After a restart every source is asked once more, and the status says what was known before.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainyard.api.addresses import told
from trainyard.api.base import SecretRef
from trainyard.api.duration import duration
from trainyard.api.schedule.children import ScheduleRef
from trainyard.api.schedule.triggers import Trigger
from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import SECRETS
from trainyard.controller.schedules.observed import Look, Reading
from trainyard.controller.schedules.triggers.access import Access
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.answer import Answer, LookFailed, SourceDown
from trainyard.controller.schedules.triggers.ask import Ask
from trainyard.controller.schedules.triggers.judge import trigger_digest
from trainyard.controller.schedules.triggers.pauses import SLOW_SECONDS, pause
from trainyard.controller.schedules.triggers.turns import Turns

log = logging.getLogger(__name__)

AT_ONCE = 6
Key = tuple[str, str]


class Taker(Protocol):
    """Takes looks, somewhere else."""

    async def take(self, ask: Ask) -> Answer: ...


@dataclass
class _Source:
    """One trigger of one schedule."""

    digest: str
    look: Look | None = None
    task: asyncio.Task[None] | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    failures: int = 0
    """In a row."""


class Poller:
    """Has looks at sources taken in the background, and says so when one is there."""

    def __init__(
        self, cluster: Cluster, *, taker: Taker, rules: Rules, clock: Clock, notify: Callable[[Key], None]
    ) -> None:
        """`notify` is told the schedule's namespace and name when a look at one of its sources has ended."""
        self._cluster = cluster
        self._taker = taker
        self._rules = rules
        self._clock = clock
        self._notify = notify
        self._sources: dict[tuple[str, str], _Source] = {}  # (schedule uid, trigger name)
        self._turns = Turns(AT_ONCE)

    def looks(self, schedule: ScheduleRef) -> Mapping[str, Look]:
        """The newest look at each of the schedule's triggers, as the triggers are now."""
        found = {}
        for trigger in schedule.spec.triggers:
            source = self._sources.get((schedule.uid, trigger.name))
            if source is not None and source.look is not None and source.digest == trigger_digest(trigger):
                found[trigger.name] = source.look
        return found

    def request(self, schedule: ScheduleRef, name: str) -> None:
        """Have a look taken, unless one is under way."""
        trigger = next(t for t in schedule.spec.triggers if t.name == name)
        made_of, key = trigger_digest(trigger), (schedule.uid, name)
        source = self._sources.get(key)
        if source is None or source.digest != made_of:
            if source is not None and source.task is not None:
                source.task.cancel()
            source = self._sources[key] = _Source(made_of)
        if source.task is None or source.task.done():
            source.task = asyncio.create_task(self._look(schedule, trigger, source), name=f"trigger {name}")

    def forget(self, uid: str) -> None:
        """The schedule is gone."""
        for key in [k for k in self._sources if k[0] == uid]:
            source = self._sources.pop(key)
            if source.task is not None:
                source.task.cancel()

    async def close(self) -> None:
        """End all looks."""
        tasks = [s.task for s in self._sources.values() if s.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, schedule: ScheduleRef, trigger: Trigger, source: _Source) -> None:
        async with self._turns.turn(schedule.namespace):
            began, error = self._clock.monotonic(), None
            last = source.look.reading if source.look else None
            try:
                answer = await self._ask(schedule.namespace, trigger, source)
                last = Reading(self._clock.now(), answer.token, answer.observed, answer.holds)
                source.marks = answer.marks
            except SourceDown as down:
                error = str(down)
            except errors.ClusterError as refused:
                error = f"its Secret cannot be read: {refused}"
            except LookFailed as failed:
                error = str(failed)
                log.error("%s: %s\n%s", _name(schedule, trigger), failed, failed.trace)
            except Exception as fault:
                # It must be seen, and must not end the polling.
                error = f"the look cannot be taken: {fault!r}, a fault of the operator; its log has more"
                log.exception("%s", _name(schedule, trigger))
            source.failures = source.failures + 1 if error else 0
            took = self._clock.monotonic() - began
            rest = pause(trigger.poll_seconds, took=took, failures=source.failures)
            if error:
                error = f"{told(error)}; asked again in {duration(rest)}"
            slow = (
                f"a look takes {duration(took)}, so the next comes in {duration(rest)}" if took > SLOW_SECONDS else ""
            )
            source.look = Look(self._clock.now(), last, error, pause=rest, note="" if error else slow)
        self._notify((schedule.namespace, schedule.name))

    async def _ask(self, namespace: str, trigger: Trigger, source: _Source) -> Answer:
        kind, spec = source_of(trigger)
        access = await self._access(namespace, spec.secret_ref)
        fields = spec.model_dump(mode="json", exclude={"secret_ref"})
        return await self._taker.take(Ask(kind, fields, access, source.marks, self._rules))

    async def _access(self, namespace: str, secret: SecretRef | None) -> Access:
        if secret is None:
            return Access()
        return Access.from_secret(await self._cluster.get(SECRETS, namespace, secret.name), secret.name)


def _name(schedule: ScheduleRef, trigger: Trigger) -> str:
    return f"trigger {trigger.name} of {schedule.namespace}/{schedule.name}"


def source_of(trigger: Trigger) -> tuple[str, Any]:
    """The trigger's one source, by the name of its field."""
    sources = {
        "gitPath": trigger.git_path,
        "prometheus": trigger.prometheus,
        "mlflowMetric": trigger.mlflow_metric,
        "dataset": trigger.dataset,
    }
    for kind, source in sources.items():
        if source is not None:
            return kind, source
    raise SourceDown(f"trigger {trigger.name} is of a kind that this version does not know")
