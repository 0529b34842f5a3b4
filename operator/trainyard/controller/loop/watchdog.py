"""Is the operator alive? Asked by the kubelet, which starts it anew when the answer is no.

A hung operator is worse than a dead one, because nobody notices. So aliveness is not "the process answers" but: no key
waits for minutes, no reconcile runs for ever, the API server can be reached with our credentials, and changes that the
API server lists were also delivered by the watch.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import TRAININGRUNS, Cluster

log = logging.getLogger(__name__)

OLDEST_READY_LIMIT = 300.0
LONGEST_RUNNING_LIMIT = 600.0
CANARY_EVERY = 60.0
UNREACHABLE_LIMIT = 300.0
"""Seconds without a single answer after which a fresh process (with fresh connections and credentials) is worth a try."""


class Queue(Protocol):
    """What the watchdog looks at."""

    def oldest_ready(self) -> float: ...
    def longest_running(self) -> float: ...


class Watchdog:
    """Collects what is wrong."""

    def __init__(
        self,
        *,
        queue: Queue,
        clock: Clock,
        stale: Callable[[], list[tuple[str, str]]],
        others: Mapping[str, Queue] | None = None,
    ) -> None:
        """`others` are queues of other kinds, by kind; `stale` names the runs whose changes the watch has not delivered in time."""
        self._queues = {"run": queue, **(others or {})}
        self._clock = clock
        self._stale = stale
        self._reached_at = clock.monotonic()

    def problems(self) -> list[str]:
        """One sentence each; empty when all is well."""
        found = []
        for kind, queue in self._queues.items():
            if (waiting := queue.oldest_ready()) > OLDEST_READY_LIMIT:
                found.append(f"a {kind} has been waiting for {waiting:.0f} s to be looked at")
            if (running := queue.longest_running()) > LONGEST_RUNNING_LIMIT:
                found.append(f"a reconcile has been running for {running:.0f} s")
        if (silent := self._clock.monotonic() - self._reached_at) > UNREACHABLE_LIMIT:
            found.append(f"the API server has not answered for {silent:.0f} s")
        if runs := self._stale():
            found.append(f"changes of {len(runs)} run(s) were not delivered by the watch, first {'/'.join(runs[0])}")
        return found

    def reached(self) -> None:
        """The API server has answered."""
        self._reached_at = self._clock.monotonic()

    async def canary(self, cluster: Cluster, namespace: str | None) -> None:
        """Ask the API server for one run now and then, for ever."""
        while True:
            await self._clock.sleep(CANARY_EVERY)
            try:
                await cluster.list(TRAININGRUNS, namespace, limit=1)
                self.reached()
            except errors.ClusterError as error:
                log.warning("the API server does not answer as it should: %s", error)
