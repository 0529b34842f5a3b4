"""Asking the sources of triggers, beside the reconciles: a slow source holds up nobody.

A look is kept in memory only. After a restart every source is asked once more, and the status says what was known before.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import aiohttp

from trainyard.api.base import SecretRef
from trainyard.api.schedule.children import ScheduleRef
from trainyard.api.schedule.triggers import Trigger
from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import SECRETS
from trainyard.controller.schedules.observed import Look, Reading
from trainyard.controller.schedules.triggers import dataset, gitpath, mlflow, prometheus
from trainyard.controller.schedules.triggers.access import Access, SourceDown
from trainyard.controller.schedules.triggers.judge import trigger_digest

log = logging.getLogger(__name__)

AT_ONCE = 8
Key = tuple[str, str]


@dataclass
class _Source:
    """One trigger of one schedule."""

    digest: str
    look: Look | None = None
    task: asyncio.Task[None] | None = None
    git: gitpath.Memory = field(default_factory=gitpath.Memory)
    data: dataset.Memory = field(default_factory=dataset.Memory)


class Poller:
    """Takes looks at sources in the background, and says so when one is there."""

    def __init__(self, cluster: Cluster, *, clock: Clock, notify: Callable[[Key], None]) -> None:
        """`notify` is told the schedule's namespace and name when a look at one of its sources has ended."""
        self._cluster = cluster
        self._clock = clock
        self._notify = notify
        self._sources: dict[tuple[str, str], _Source] = {}  # (schedule uid, trigger name)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

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
        if self._session is not None:
            await self._session.close()

    async def _look(self, schedule: ScheduleRef, trigger: Trigger, source: _Source) -> None:
        async with self._slots:
            last = source.look.reading if source.look else None
            try:
                reading = await self._read(schedule.namespace, trigger, source)
            except SourceDown as error:
                source.look = Look(self._clock.now(), last, str(error))
            except errors.ClusterError as error:
                source.look = Look(self._clock.now(), last, f"its Secret cannot be read: {error}")
            except Exception as error:
                # A fault of ours, or an answer nobody thought of: it must be seen, and must not end the polling.
                log.exception("trigger %s of %s/%s", trigger.name, schedule.namespace, schedule.name)
                source.look = Look(self._clock.now(), last, f"unexpected answer: {type(error).__name__}: {error}")
            else:
                source.look = Look(reading.at, reading)
        self._notify((schedule.namespace, schedule.name))

    async def _read(self, namespace: str, trigger: Trigger, source: _Source) -> Reading:
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=True)
        session, now = self._session, self._clock.now()
        if (git := trigger.git_path) is not None:
            reading = await gitpath.read(git, await self._access(namespace, git.secret_ref), source.git, now=now)
        elif (query := trigger.prometheus) is not None:
            reading = await prometheus.read(session, query, await self._access(namespace, query.secret_ref), now=now)
        elif (metric := trigger.mlflow_metric) is not None:
            reading = await mlflow.read(session, metric, await self._access(namespace, metric.secret_ref), now=now)
        elif (data := trigger.dataset) is not None:
            access = await self._access(namespace, data.secret_ref)
            reading = await dataset.read(session, data, access, source.data, now=now)
        else:
            raise SourceDown(f"trigger {trigger.name} is of a kind that this version does not know")
        return replace(reading, at=self._clock.now())

    async def _access(self, namespace: str, secret: SecretRef | None) -> Access:
        if secret is None:
            return Access()
        return Access.from_secret(await self._cluster.get(SECRETS, namespace, secret.name), secret.name)
