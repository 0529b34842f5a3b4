"""Where curves outlive pod and operator: one ConfigMap a run, `<run>-history`, owned by the run.

Why there: the volume of a run can be read by its pods alone, so nothing could answer for a run whose pod is gone; the status is
sent to everybody who watches runs with each change; a database of the operator's own would be a server more. A ConfigMap is
read by whoever asks, goes with its run, and is as large as the curves compressed (some 10 kB, at most 128).

What it costs: a run that reports is written every `PAUSE` seconds while it trains, and once more when it ends; all together not
more than one write in `SECONDS_A_WRITE`. A run that reports nothing costs nothing, and an idle operator writes nothing. After a
kill the points of the last minutes are missing; at an orderly end all are written.
"""

import asyncio
import base64
import binascii
import logging

from trainyard.api import names
from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL, RUN_LABEL, RUN_UID_LABEL
from trainyard.controller.clock import Clock
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster, Object
from trainyard.controller.kube.resources import CONFIGMAPS, TRAININGRUNS
from trainyard.controller.reports.curves import Table
from trainyard.controller.reports.history import Key
from trainyard.controller.reports.memory import Entry, HistoryMemory

log = logging.getLogger(__name__)

FIELD = "curves"
PAUSE = 300.0
"""Seconds between two writes of one run that trains."""
SECONDS_A_WRITE = 1.0
"""Over all runs that train."""
SECONDS_AN_END = 0.2
"""Over all runs that have ended."""
IDLE = 1.0


class ConfigMaps:
    """Reads and writes curves."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def read(self, key: Key, uid: str) -> Table | None:
        """What was written for this run; None where the API server does not say."""
        try:
            found = await self._cluster.get(CONFIGMAPS, key[0], names.history_name(key[1]))
        except errors.ClusterError as error:
            log.warning("the history of a run cannot be read: %s", error, extra={"namespace": key[0], "run": key[1]})
            return None
        if found is None or not _is_of(found, uid):
            return Table()
        try:
            return Table.unpack(base64.b64decode((found.get("binaryData") or {}).get(FIELD) or ""))
        except (binascii.Error, ValueError):
            return Table()

    async def write(self, key: Key, uid: str, table: Table) -> None:
        """Raises `ClusterError`."""
        packed = await asyncio.to_thread(table.pack)
        data = {FIELD: base64.b64encode(packed).decode()}
        namespace, name = key[0], names.history_name(key[1])
        try:
            await self._cluster.create(CONFIGMAPS, namespace, _manifest(key, uid) | {"binaryData": data})
        except errors.AlreadyExists:
            found = await self._cluster.get(CONFIGMAPS, namespace, name, metadata_only=True)
            if found is None or not _is_of(found, uid):
                log.warning("ConfigMap %s/%s is somebody else's; the run's history is not kept", namespace, name)
                return
            await self._cluster.patch(
                CONFIGMAPS, namespace, name, {"metadata": {"uid": found["metadata"]["uid"]}, "binaryData": data}
            )


class Keeper:
    """Decides what is written when."""

    def __init__(self, *, memory: HistoryMemory, maps: ConfigMaps, clock: Clock) -> None:
        self._memory = memory
        self._maps = maps
        self._clock = clock

    async def run(self) -> None:
        """For ever."""
        while True:
            uid = self._due()
            if uid is None:
                await self._clock.sleep(IDLE)
                continue
            ended = self._memory.entries[uid].ended
            await self._save(uid)
            await self._clock.sleep(SECONDS_AN_END if ended else SECONDS_A_WRITE)

    async def flush(self, seconds: float) -> None:
        """Write what has changed, for at most so long."""
        try:
            async with asyncio.timeout(seconds):
                for uid in [uid for uid, entry in self._memory.entries.items() if entry.changed]:
                    await self._save(uid)
        except TimeoutError:
            log.warning("not all histories could be written in %g s; their last minutes are missing", seconds)

    def _due(self) -> str | None:
        """An ended run first, else the one that has waited for longest."""
        for uid, entry in tuple(self._memory.entries.items()):
            if entry.ended:
                if entry.changed:
                    if entry.saved_at <= self._clock.monotonic():
                        return uid
                else:
                    self._memory.forget(uid)
        waiting = [(entry.saved_at, uid) for uid, entry in self._memory.entries.items() if entry.changed]
        if not waiting:
            return None
        saved_at, uid = min(waiting)
        return uid if saved_at + PAUSE <= self._clock.monotonic() else None

    async def _save(self, uid: str) -> None:
        entry: Entry | None = self._memory.entries.get(uid)
        if entry is None:
            return None
        entry.saved_at = self._clock.monotonic()
        if not await self._memory.complete(uid):
            return _put_off(entry)
        entry.changed = False
        try:
            await self._maps.write(entry.key, uid, entry.table.copy())
        except errors.NotFound:
            self._memory.forget(uid)  # namespace or run are gone
        except errors.Forbidden as error:
            log.warning(
                "the history of a run is not kept: %s", error
            )  # a quota, a namespace that ends, a missing right
        except errors.ClusterError as error:
            log.warning("the history of a run could not be written: %s", error)
            entry.changed = True
            return _put_off(entry)
        if entry.ended and not entry.changed:
            self._memory.forget(uid)
        return None


def _put_off(entry: Entry) -> None:
    """Once more, a little later."""
    entry.saved_at += 10.0 if entry.ended else 10.0 - PAUSE


def _is_of(found: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in found["metadata"].get("ownerReferences") or ())


def _manifest(key: Key, uid: str) -> Object:
    owner = {"apiVersion": TRAININGRUNS.api_version, "kind": TRAININGRUNS.kind, "name": key[1], "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.history_name(key[1]),
            "namespace": key[0],
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, RUN_LABEL: key[1], RUN_UID_LABEL: uid},
            "ownerReferences": [owner],
        },
    }
