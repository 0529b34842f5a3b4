"""From events to keys: which run an event is about, and whether it says anything new.

An event is a hint and nothing else. Two kinds of hints are dropped because they would only make the operator look at what
it has just done itself: a change of nothing but a run's status, and the first event of a child that has not begun to do
anything. Everything else puts the run's key on the queue.

A run that nobody has looked at yet comes whole, and its first look takes it from here instead of reading it once more.

What has been delivered is also what the slow resync is compared with: a run that has changed and whose change was not
delivered means that the watch is dead, however alive it looks.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trainyard.api.names import RUN_LABEL

Key = tuple[str, str]

SOON = 0.2
"""Seconds; children change several times within a moment, and one look sees all of it."""


class Keys(Protocol):
    """Where keys go."""

    def add(self, key: Key, *, urgent: bool = False) -> None: ...
    def add_after(self, key: Key, seconds: float) -> None: ...


class Runs(Protocol):
    """Who counts the runs that exist."""

    def run_seen(self, namespace: str, name: str, state: str) -> None: ...
    def run_gone(self, namespace: str, name: str) -> None: ...


@dataclass(frozen=True)
class _Delivered:
    version: str
    meaning: int
    """Changes when people have changed something."""


class Inbox:
    """Takes the watch engine's events."""

    def __init__(self, *, queue: Keys, runs: Runs) -> None:
        self._queue = queue
        self._runs = runs
        self._delivered: dict[Key, _Delivered] = {}
        self._unseen: dict[Key, Mapping[str, Any]] = {}
        self._dying_claims: set[Key] = set()
        self._missing: set[Key] = set()
        self._caught_up = asyncio.Event()

    def run_event(self, type_: str | None, run: Mapping[str, Any]) -> None:
        """A TrainingRun was listed (None), ADDED, MODIFIED or DELETED."""
        metadata = run["metadata"]
        key = (metadata["namespace"], metadata["name"])
        self._missing.discard(key)
        if not self._missing:
            self._caught_up.set()
        self._unseen.pop(key, None)
        if type_ == "DELETED":
            self._delivered.pop(key, None)
            self._runs.run_gone(*key)
            self._queue.add(key, urgent=True)
            return
        meaning = _meaning(metadata)
        known = self._delivered.get(key)
        self._delivered[key] = _Delivered(metadata["resourceVersion"], meaning)
        self._runs.run_seen(*key, (run.get("status") or {}).get("state") or "")
        if known is None and not (run.get("status") or {}).get("conditions"):
            self._unseen[key] = run
        if known is None or known.meaning != meaning or type_ is None:
            self._queue.add(key, urgent=True)

    def take_unseen(self, key: Key) -> Mapping[str, Any] | None:
        """The run as it was delivered, once, if it had no status then and no event of it has come since.

        It may be out of date all the same, like everything from a watch. A new run bears that: what is made has names that
        follow from the run and the run's uid as owner, so it is met by the next try, or dies with its owner.
        """
        return self._unseen.pop(key, None)

    def child_event(self, type_: str | None, child: Mapping[str, Any]) -> None:
        """A Job or pod of ours was listed, ADDED, MODIFIED or DELETED."""
        if not (type_ == "ADDED" and _untouched(child.get("status") or {})):
            self._look_at_runs_of(child["metadata"])

    def claim_event(self, type_: str | None, claim: Mapping[str, Any]) -> None:
        """A claim of ours was listed, ADDED, MODIFIED or DELETED. Only its deletion is news: all else the pods say."""
        metadata = claim["metadata"]
        key = (metadata["namespace"], metadata["name"])
        dies = "deletionTimestamp" in metadata and type_ != "DELETED"
        if dies != (key in self._dying_claims):
            self._dying_claims ^= {key}
            self._look_at_runs_of(metadata)

    def dying_claims(self, namespace: str) -> frozenset[str]:
        """Names of claims that somebody has deleted and that are there as long as a pod uses them."""
        return frozenset(name for there, name in self._dying_claims if there == namespace)

    def _look_at_runs_of(self, metadata: Mapping[str, Any]) -> None:
        for run in _runs_of(metadata):
            self._queue.add_after((metadata["namespace"], run), SOON)

    # Comparison with what the API server lists

    def known(self) -> int:
        """Runs that have been delivered and not deleted."""
        return len(self._delivered)

    def compare(self, listed: Mapping[Key, str]) -> None:
        """Runs as just listed, with their resourceVersions. What was not delivered yet is remembered."""
        self._missing = {
            key
            for key, version in listed.items()
            if (known := self._delivered.get(key)) is None or known.version != version
        }
        self._caught_up = asyncio.Event()
        if not self._missing:
            self._caught_up.set()
        for key in self._delivered.keys() - listed.keys():
            # Deleted while the watch had a gap: no event will ever say so.
            del self._delivered[key]
            self._unseen.pop(key, None)
            self._runs.run_gone(*key)
            self._queue.add(key)

    def missing(self) -> list[Key]:
        """Runs that had changed at the last comparison and of which no event has come since."""
        return sorted(self._missing)

    async def caught_up(self) -> None:
        """Wait until there is an event of each run that was missing at the last comparison."""
        await self._caught_up.wait()


def _meaning(metadata: Mapping[str, Any]) -> int:
    """Of what people change: spec (its generation), labels, annotations, deletion; and of which object it is."""
    return hash(
        (
            metadata["uid"],
            metadata.get("generation"),
            metadata.get("deletionTimestamp"),
            frozenset((metadata.get("labels") or {}).items()),
            frozenset((metadata.get("annotations") or {}).items()),
        )
    )


def _runs_of(metadata: Mapping[str, Any]) -> set[str]:
    """Names of the runs that a child belongs to: by its label, and by its owners, because labels can be edited away."""
    label = (metadata.get("labels") or {}).get(RUN_LABEL)
    owners = {o["name"] for o in metadata.get("ownerReferences") or () if o.get("kind") == "TrainingRun"}
    return owners | ({label} if label else set())


def _untouched(status: Mapping[str, Any]) -> bool:
    """A child that was made a moment ago, by us: no controller, scheduler or kubelet has written to it."""
    return not status.get("conditions") and not status.get("active") and status.get("phase") in (None, "Pending")
