"""One operator at a time: a coordination.k8s.io Lease, held from before the first watch until after the last write.

Two operators would double nothing (names are deterministic, writes are checked), but they would answer each other's
writes and give half of the pods a progress store that nobody reads. So a second one waits. A holder that cannot renew
stops being one before anybody else may start: it gives up `RENEW_DEADLINE` seconds after the last renewal, others may take
over after `DURATION`. Whether a holder is alive is judged by watching its Lease change, never by comparing clocks of two
machines.
"""

import asyncio
import logging
from collections.abc import Callable

from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL
from trainyard.controller.clock import Clock, rfc3339_micro
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import LEASES, Cluster, Object

log = logging.getLogger(__name__)

DURATION = 30
RENEW_EVERY = 10.0
RENEW_DEADLINE = 20.0
RETRY = 2.0
"""Seconds between two tries to take a Lease, or to renew one after a failure."""


class LeaseLost(RuntimeError):
    """Somebody else may be working by now: stop at once."""


class Lease:
    """This process' claim to be the operator."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        clock: Clock,
        namespace: str,
        name: str,
        identity: str,
        on_change: Callable[[bool], None] = lambda held: None,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._on_change = on_change
        self._version = ""
        self._renewed_at = 0.0
        self._observed: tuple[str, float] | None = None  # another's version, and since when it stands
        self.held = False

    async def acquire(self) -> None:
        """Wait until this process holds the Lease. Raises `Forbidden` when it may not even read it."""
        announced = ""
        while True:
            try:
                holder = await self._try_to_take()
            except (errors.Transient, errors.Unauthorized, errors.Conflict, errors.AlreadyExists) as error:
                log.info("the lease cannot be taken yet: %s", error)
            else:
                if holder is None:
                    self.held = True
                    self._on_change(True)
                    log.info("lease taken", extra={"lease": self._name, "holder": self._identity})
                    return
                if holder != announced:
                    log.info("waiting for the lease", extra={"lease": self._name, "holder": holder})
                    announced = holder
            await self._clock.sleep(RETRY)

    async def hold(self) -> None:
        """Renew for ever. Raises `LeaseLost`."""
        pause = RENEW_EVERY
        while True:
            await self._clock.sleep(pause)
            try:
                await self._renew()
                pause = RENEW_EVERY
            except LeaseLost:
                self._drop()
                raise
            except (errors.ClusterError, TimeoutError) as error:
                since = self._clock.monotonic() - self._renewed_at
                if since + RETRY > RENEW_DEADLINE:
                    self._drop()
                    raise LeaseLost(f"the lease could not be renewed for {since:.0f} s: {error}") from error
                log.warning("the lease could not be renewed, trying again: %s", error)
                pause = RETRY

    async def release(self) -> None:
        """Let another one take it at once instead of after `DURATION`."""
        if not self.held:
            return
        self._drop()
        changes = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": rfc3339_micro(self._clock.now())}
        try:
            await self._patch(changes)
        except errors.ClusterError as error:
            log.info("the lease could not be released, it runs out by itself: %s", error)

    async def _try_to_take(self) -> str | None:
        """None when it is ours now, else who holds it."""
        lease = await self._cluster.get(LEASES, self._namespace, self._name)
        moment = rfc3339_micro(self._clock.now())
        started = self._clock.monotonic()
        if lease is None:
            created = await self._cluster.create(LEASES, self._namespace, self._new(moment))
            self._version = created["metadata"]["resourceVersion"]
            self._renewed_at = started
            return None
        spec = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        version = lease["metadata"]["resourceVersion"]
        if holder not in ("", self._identity) and not self._expired(version, spec.get("leaseDurationSeconds")):
            return holder
        self._version = version
        changes = {"holderIdentity": self._identity, "leaseDurationSeconds": DURATION, "renewTime": moment}
        if holder != self._identity:
            changes |= {"acquireTime": moment, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        await self._patch(changes)
        self._renewed_at = started
        return None

    def _expired(self, version: str, duration: object) -> bool:
        """Whether this version of another's Lease has stood for longer than it is good for, as seen from here."""
        now = self._clock.monotonic()
        if self._observed is None or self._observed[0] != version:
            self._observed = (version, now)
            return False
        return now - self._observed[1] >= (duration if isinstance(duration, int) and duration > 0 else DURATION)

    async def _renew(self) -> None:
        started = self._clock.monotonic()
        try:
            # The client's own timeout is longer than the deadline.
            async with asyncio.timeout(RENEW_DEADLINE / 2):
                await self._patch({"renewTime": rfc3339_micro(self._clock.now())})
        except (errors.Conflict, errors.NotFound):
            lease = await self._cluster.get(LEASES, self._namespace, self._name)
            holder = (lease or {}).get("spec", {}).get("holderIdentity")
            if lease is None or holder != self._identity:
                raise LeaseLost(f"the lease has been taken by {holder!r}" if lease else "the lease is gone") from None
            # Somebody edited it, or our last renewal arrived although its answer did not.
            self._version = lease["metadata"]["resourceVersion"]
            raise
        self._renewed_at = started

    async def _patch(self, changes: Object) -> None:
        body = {"metadata": {"resourceVersion": self._version}, "spec": changes}
        patched = await self._cluster.patch(LEASES, self._namespace, self._name, body)
        self._version = patched["metadata"]["resourceVersion"]

    def _new(self, moment: str) -> Object:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "labels": {MANAGED_BY_LABEL: MANAGED_BY}},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION,
                "acquireTime": moment,
                "renewTime": moment,
                "leaseTransitions": 0,
            },
        }

    def _drop(self) -> None:
        self.held = False
        self._on_change(False)
