"""All that sweeps need in the operator's process, as one part of it, with a queue and workers of their own."""

from prometheus_client import CollectorRegistry

from trainyard.controller import logs
from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.loop.queue import WorkQueue
from trainyard.controller.loop.subjects import Key, Recorder, log_failure
from trainyard.controller.reports.history import History
from trainyard.controller.sweeps.inbox import SweepInbox
from trainyard.controller.sweeps.metrics import SweepMetrics
from trainyard.controller.sweeps.reconcile import SweepReconciler


class SweepDesk:
    """Queue, watch and reconciler of sweeps. `inbox` takes the events; `run` does the work."""

    def __init__(self, *, cluster: Cluster, clock: Clock, registry: CollectorRegistry) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(clock=clock, retry_after=errors.retry_after, observe=self._looked)
        self.inbox = SweepInbox(queue=self.queue)
        self._cluster = cluster
        self._clock = clock
        self._metrics = SweepMetrics(registry)

    async def run(self, *, history: History, events: Recorder, workers: int) -> None:
        """Work until the queue is stopped."""
        reconciler = SweepReconciler(
            cluster=self._cluster, history=history, events=events, metrics=self._metrics, clock=self._clock
        )

        async def look(key: Key) -> float | None:
            with logs.about(namespace=key[0], sweep=key[1]):
                return await reconciler.reconcile(key)

        await self.queue.run(look, workers=workers)

    def _looked(self, key: Key, *, seconds: float, delay: float | None, error: BaseException | None) -> None:
        if error is not None:
            log_failure("sweep", key, delay=delay, error=error)
