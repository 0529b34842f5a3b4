"""What the reconcilers of runs and of schedules do alike: read an object by its key, know it by its uid, write its status.

A key is a name, and a name can be taken again. Of an object that is gone nobody can be asked for its uid any more, so which
uid had the key is remembered here, and whoever keeps something by uid is told when to forget it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel

from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import Resource, identified

log = logging.getLogger(__name__)

Key = tuple[str, str]
Object = dict[str, Any]


class Recorder(Protocol):
    """Takes Events; never blocks, never fails."""

    def record(self, run: Mapping[str, Any], *, type: str, reason: str, message: str) -> None: ...


@dataclass(frozen=True)
class Notice:
    """One Event on the object."""

    type: str
    reason: StrEnum
    message: str


class Subjects:
    """The objects of one kind."""

    def __init__(self, cluster: Cluster, kind: Resource, *, events: Recorder, forget: Callable[[str], None]) -> None:
        """`forget` is called with the uid of each one that is gone."""
        self._cluster = cluster
        self._kind = kind
        self._events = events
        self._forget = forget
        self._uids: dict[Key, str] = {}

    async def get(self, key: Key, known: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """The object (`known`, if somebody has it already); None when it is gone or about to be."""
        raw = known or await self._cluster.get(self._kind, *key)
        uids = {self._uids.pop(key, None), None if raw is None else raw["metadata"]["uid"]} - {None}
        if raw is not None and "deletionTimestamp" not in raw["metadata"]:
            self._uids[key] = raw["metadata"]["uid"]
            uids.discard(self._uids[key])
        else:
            raw = None
        for uid in uids:
            self._forget(str(uid))
        return raw

    def heard_of(self, key: Key, uid: str) -> None:
        """It exists, or did a moment ago; perhaps no look has told of it yet."""
        self._uids.setdefault(key, uid)

    async def put(self, raw: Mapping[str, Any], status: BaseModel, notices: Iterable[Notice] = ()) -> Object:
        """Write the status, then tell about it. Returns the object as it is now."""
        metadata = raw["metadata"]
        body = identified(raw) | {"status": status.model_dump(by_alias=True, exclude_none=True)}
        answer = await self._cluster.replace_status(self._kind, metadata["namespace"], metadata["name"], body)
        for notice in notices:
            self._events.record(raw, type=notice.type, reason=notice.reason.value, message=notice.message)
        return {**raw, "metadata": answer["metadata"]}


def log_failure(kind: str, key: Key, *, delay: float | None, error: BaseException) -> None:
    """A look at a run or a schedule has failed, and is taken again."""
    fields = {"namespace": key[0], kind: key[1], "next_try_seconds": round(delay or 0, 1)}
    if isinstance(error, errors.Conflict):
        log.info("the %s has changed meanwhile, looking again", kind, extra=fields)
    elif isinstance(error, errors.ClusterError):
        log.warning("%s", error, extra=fields)
    else:
        log.error("looking at the %s failed: %r", kind, error, extra=fields, exc_info=error)
