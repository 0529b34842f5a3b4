"""Deployments that have made room for a training get their replicas back, whatever has become of the run or the operator.

What is down, and for whom, stands on the Deployments. They are listed by their label when the operator starts and then for as
long as there is one; while there is none, nothing is asked.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import DEPLOYMENTS, TRAININGRUNS
from trainyard.controller.runs.yielding import YIELDED_LABEL, Holder, Note, give_back, still_needs

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
"""Between two looks while a Deployment is down: how long it may wait after its run has ended."""


class GiveBack:
    """Looks at Deployments that are down, and scales those up again that no run needs to be."""

    def __init__(self, *, cluster: Cluster, clock: Clock, namespaces: Sequence[str] = ()) -> None:
        """`namespaces`: where the operator may look; all of them if empty."""
        self._cluster = cluster
        self._clock = clock
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._taken = asyncio.Event()

    @asynccontextmanager
    async def taking(self) -> AsyncIterator[None]:
        """Around a write that takes a Deployment down.

        Raises:
            Forbidden: it could not be found again, and so must not be.
        """
        await self.once()
        try:
            yield
        finally:  # also where nobody knows what has become of the write
            self._taken.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                down = await self.once()
            except errors.Forbidden as error:
                log.debug("no run can have a Deployment make room (chart value rbac.yieldFrom): %s", error)
                down = 0
            except errors.ClusterError as error:
                log.warning("Deployments that are down for a run could not be looked at: %s", error)
                down = 1
            if not down:
                await self._taken.wait()
            self._taken.clear()
            await self._clock.sleep(LOOK_SECONDS)

    async def once(self) -> int:
        """One look. Returns how many are still down."""
        down = 0
        for namespace in self._namespaces:
            for raw in await self._cluster.list(DEPLOYMENTS, namespace, label_selector=f"{YIELDED_LABEL}=true"):
                note = Note.on(raw)
                needed = await self._that_need(note.holders if note else ())
                patch = give_back(raw, needs=needed.__contains__)
                down += bool(needed)
                if patch is None:
                    continue
                try:
                    await self._cluster.patch(patch.resource, patch.namespace, patch.name, patch.body)
                except (errors.Conflict, errors.NotFound):
                    down += 1  # somebody has written it meanwhile: looked at again
                    continue
                if not needed:
                    log.info("deployment given back", extra={"namespace": patch.namespace, "deployment": patch.name})
        return down

    async def _that_need(self, holders: tuple[Holder, ...]) -> tuple[Holder, ...]:
        """From the first that needs it on: one is enough, and those after it are asked when they are the first."""
        for number, holder in enumerate(holders):
            run = await self._cluster.get(TRAININGRUNS, holder.namespace, holder.name)
            if still_needs(holder, run):
                return holders[number:]
        return ()
