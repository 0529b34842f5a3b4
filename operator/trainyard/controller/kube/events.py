"""Kubernetes Events on the TrainingRun: what happened, for `kubectl describe`.

Recording never waits and never fails: an Event is put on a bounded queue and one writer sends it, slowly enough that a
burst of runs keeps the API server for itself. The same message within ten minutes is one Event with a count, as it is in
Kubernetes itself. An Event's name follows from what it says and the ten minutes it falls into, so an operator that was
restarted counts on instead of starting again.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.api.addresses import told
from trainyard.controller.clock import Clock, rfc3339
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import EVENTS, Cluster, Object

log = logging.getLogger(__name__)

COMPONENT = "trainyard-operator"
MESSAGE_LIMIT = 1024
"""Bytes that the API server takes."""
WINDOW_SECONDS = 600
PENDING_LIMIT = 2000
KEPT = 2000
"""Events whose count is known without asking the API server."""
BURST_PER_RUN = 25
REFILL_SECONDS = 30.0
"""A run may write 25 Events at once and one more every 30 seconds; a run that loops cannot flood etcd."""
WRITES_PER_SECOND = 20.0


@dataclass(frozen=True)
class _Notice:
    name: str
    run: Mapping[str, str]
    type: str
    reason: str
    message: str
    at: str


class EventRecorder:
    """Takes Events from reconciles and writes them in the background (`run`)."""

    def __init__(self, cluster: Cluster, *, clock: Clock, host: str = "") -> None:
        self._cluster = cluster
        self._clock = clock
        self._host = host
        self._pending: asyncio.Queue[_Notice] = asyncio.Queue(PENDING_LIMIT)
        self._counts: OrderedDict[str, int] = OrderedDict()  # by the Event's name
        self._allowance: OrderedDict[str, tuple[float, float]] = OrderedDict()  # run uid: (tokens, at)
        self.dropped = 0
        """Events that were not written: too many, or refused by the API server."""

    def record(self, run: Mapping[str, Any], *, type: str, reason: str, message: str) -> None:
        """Have an Event written about this TrainingRun (an object as read from the API server)."""
        metadata = run["metadata"]
        if not self._allowed(metadata["uid"]):
            self.dropped += 1
            return
        moment = self._clock.now()
        text = _cut(told(message))
        window = int(moment.timestamp()) // WINDOW_SECONDS
        identity = "\0".join((metadata["uid"], type, reason, text, str(window)))
        name = f"{metadata['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        about = {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        try:
            self._pending.put_nowait(_Notice(name, about, type, reason, text, rfc3339(moment)))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write what is recorded, until cancelled."""
        while True:
            notice = await self._pending.get()
            try:
                await self._write(notice)
            except errors.ClusterError as error:
                # An Event is a courtesy: it is not worth a retry that would hold up the ones behind it.
                self.dropped += 1
                log.debug("event not written: %s", error)
            finally:
                self._pending.task_done()
            await self._clock.sleep(1 / WRITES_PER_SECOND)

    async def flush(self, seconds: float) -> None:
        """Wait until all is written, but no longer than this."""
        try:
            async with asyncio.timeout(seconds):
                await self._pending.join()
        except TimeoutError:
            log.info("%d events are left unwritten", self._pending.qsize())

    async def _write(self, notice: _Notice) -> None:
        namespace = notice.run["namespace"]
        count = self._counts.get(notice.name, 0)
        if count == 0:
            try:
                await self._cluster.create(EVENTS, namespace, self._event(notice))
            except errors.AlreadyExists:
                there = await self._cluster.get(EVENTS, namespace, notice.name) or {}
                count = int(there.get("count") or 1)
        if count > 0:
            try:
                changes = {"count": count + 1, "lastTimestamp": notice.at}
                await self._cluster.patch(EVENTS, namespace, notice.name, changes)
            except errors.NotFound:  # the API server deletes Events after an hour
                await self._cluster.create(EVENTS, namespace, self._event(notice))
                count = 0
        self._counts[notice.name] = count + 1
        self._counts.move_to_end(notice.name)
        if len(self._counts) > KEPT:
            self._counts.popitem(last=False)

    def _event(self, notice: _Notice) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": notice.name, "namespace": notice.run["namespace"]},
            "involvedObject": dict(notice.run),
            "type": notice.type,
            "reason": notice.reason,
            "message": notice.message,
            "count": 1,
            "firstTimestamp": notice.at,
            "lastTimestamp": notice.at,
            "source": {"component": COMPONENT, **({"host": self._host} if self._host else {})},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._host,
        }

    def _allowed(self, uid: str) -> bool:
        """A token bucket for each run."""
        now = self._clock.monotonic()
        tokens, at = self._allowance.get(uid, (float(BURST_PER_RUN), now))
        tokens = min(float(BURST_PER_RUN), tokens + (now - at) / REFILL_SECONDS)
        allowed = tokens >= 1
        self._allowance[uid] = (tokens - 1 if allowed else tokens, now)
        self._allowance.move_to_end(uid)
        if len(self._allowance) > KEPT:
            self._allowance.popitem(last=False)
        return allowed


def _cut(message: str) -> str:
    """At most MESSAGE_LIMIT bytes of UTF-8, cut between characters."""
    encoded = message.encode()
    if len(encoded) <= MESSAGE_LIMIT:
        return message
    return encoded[: MESSAGE_LIMIT - 3].decode(errors="ignore") + "…"
