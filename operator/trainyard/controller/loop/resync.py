"""A slow look at all runs, whatever the events say.

Watches lose deletions during a gap, and a dead watch says nothing at all. So every few minutes all runs are listed
(metadata only, page by page) and looked at, spread over a while so that thousands of them make no spike. A look at a run
that is as it should be costs reads and no write.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import TRAININGRUNS, Cluster
from trainyard.controller.loop.inbox import Inbox, Key, Keys
from trainyard.controller.metrics import Metrics

log = logging.getLogger(__name__)

JITTER = 0.1
SPREAD = 0.25
"""Share of the interval over which the looks are spread."""
RETRY = 5.0
GRACE = 60.0
"""Seconds that the watch has to deliver what a list has shown already."""


class Resync:
    """Lists, compares with what was delivered, enqueues."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        clock: Clock,
        queue: Keys,
        inbox: Inbox,
        metrics: Metrics,
        namespaces: Sequence[str],
        interval: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._queue = queue
        self._inbox = inbox
        self._metrics = metrics
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._interval = interval
        self._jitter = jitter
        self._overdue: list[Key] = []

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(self._interval * (1 + JITTER * (2 * self._jitter() - 1)))
            try:
                await self.once()
            except errors.ClusterError as error:
                log.warning("the runs could not be listed: %s", error)

    async def catch_up(self) -> None:
        """Wait until the watch, just started, has delivered every run that exists; not longer than GRACE."""
        while True:
            try:
                self._inbox.compare(await self._listed())
                break
            except errors.ClusterError as error:
                log.warning("the runs cannot be listed yet: %s", error)
                await self._clock.sleep(RETRY)
        try:
            async with asyncio.timeout(GRACE):
                await self._inbox.caught_up()
        except TimeoutError:
            log.warning("%d runs have not been delivered by the watch yet", len(self._inbox.missing()))

    async def once(self) -> None:
        """One round."""
        listed = await self._listed()
        self._inbox.compare(listed)
        self._metrics.only_runs(set(listed))
        for key in listed:
            self._queue.add_after(key, self._jitter() * SPREAD * self._interval)
        await self._clock.sleep(min(GRACE, self._interval / 2))
        self._overdue = self._inbox.missing()

    def overdue(self) -> list[Key]:
        """Runs whose change was not delivered within GRACE after it was listed, and not until now."""
        if not self._overdue:
            return []
        still = set(self._inbox.missing())
        self._overdue = [key for key in self._overdue if key in still]
        return self._overdue

    async def _listed(self) -> dict[Key, str]:
        found: dict[Key, str] = {}
        for namespace in self._namespaces:
            async for page in self._cluster.pages(TRAININGRUNS, namespace, metadata_only=True):
                for item in page:
                    metadata = item["metadata"]
                    found[metadata["namespace"], metadata["name"]] = metadata["resourceVersion"]
                await asyncio.sleep(0)
        return found
