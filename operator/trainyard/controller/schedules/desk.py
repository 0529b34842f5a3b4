"""All that schedules need in the operator's process, as one part of it.

They have a queue and workers of their own: a burst of a thousand runs does not make a slot late, and five hundred slots
of the same second do not hold up a run.
"""

from prometheus_client import CollectorRegistry

from trainyard.controller import logs
from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.loop.queue import WorkQueue
from trainyard.controller.loop.subjects import Key, Recorder, log_failure
from trainyard.controller.schedules.inbox import ScheduleInbox
from trainyard.controller.schedules.metrics import ScheduleMetrics
from trainyard.controller.schedules.reconcile import ScheduleReconciler
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.looks import Looks
from trainyard.controller.schedules.triggers.poll import Poller


class ScheduleDesk:
    """Queue, watch, triggers and reconciler of schedules. `inbox` takes the events; `run` does the work."""

    def __init__(
        self, *, cluster: Cluster, clock: Clock, registry: CollectorRegistry, rules: Rules, look_memory: int
    ) -> None:
        """`rules` say what triggers may ask; each look at a source may use so many bytes of memory."""
        self.queue: WorkQueue[Key] = WorkQueue(clock=clock, retry_after=errors.retry_after, observe=self._looked)
        self.inbox = ScheduleInbox(queue=self.queue)
        self._cluster = cluster
        self._clock = clock
        self._rules = rules
        self._looks = Looks(memory=look_memory)
        self._metrics = ScheduleMetrics(registry)

    async def run(self, *, events: Recorder, workers: int) -> None:
        """Work until the queue is stopped."""
        poller = Poller(self._cluster, taker=self._looks, rules=self._rules, clock=self._clock, notify=self.queue.add)
        reconciler = ScheduleReconciler(
            cluster=self._cluster, sources=poller, events=events, watcher=self._metrics, clock=self._clock
        )

        async def look(key: Key) -> float | None:
            with logs.about(namespace=key[0], schedule=key[1]):
                return await reconciler.reconcile(key)

        try:
            await self.queue.run(look, workers=workers)
        finally:
            await poller.close()
            await self._looks.close()

    def _looked(self, key: Key, *, seconds: float, delay: float | None, error: BaseException | None) -> None:
        if error is not None:
            log_failure("schedule", key, delay=delay, error=error)
