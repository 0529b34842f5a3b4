"""Everything that happened to some objects, written down while a test does other things.

A list at the end would miss what was made and deleted in between; a doubled Job is exactly of that kind.
"""

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tests.e2e.kube import Change, Kube, Object
from trainyard.controller.kube.resources import Resource

FOREVER = 24 * 3600.0


class Recording:
    """All changes of a kind of object in one namespace, from entering the context to leaving it."""

    def __init__(self, kube: Kube, resource: Resource, namespace: str, *, name: str = "", labels: str = "") -> None:
        self._kube = kube
        self._resource = resource
        self._namespace = namespace
        self._name = name
        self._labels = labels
        self._changed = threading.Condition()
        self._changes: list[Change] = []
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"recording {resource.plural}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()

    @property
    def changes(self) -> list[Change]:
        """What has been seen so far, oldest first."""
        with self._changed:
            if self._error is not None:
                raise RuntimeError(f"recording {self._resource.plural} broke off") from self._error
            return list(self._changes)

    def versions(self, name: str) -> list[Object]:
        """Every version of one object that was seen, oldest first."""
        return [c.object for c in self.changes if c.object["metadata"]["name"] == name and c.type != "DELETED"]

    def created(self) -> list[str]:
        """Name of every object that was ever made, once for each uid, in the order of their making."""
        seen: dict[str, str] = {}
        for change in self.changes:
            seen.setdefault(change.object["metadata"]["uid"], change.object["metadata"]["name"])
        return list(seen.values())

    def mark(self) -> int:
        """How many changes there have been so far; for `await_another`."""
        return len(self.changes)

    def await_another(self, mark: int, *, seconds: float) -> bool:
        """Return at the moment when one more object than at `mark` has been made; False if none is in that time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not any(c.type == "ADDED" for c in self._changes[mark:]):
                left = deadline - time.monotonic()
                if left <= 0 or self._stopped.is_set():
                    return False
                self._changed.wait(left)
        return True

    def follow(self, *, seconds: float) -> Iterator[Change]:
        """The changes from the beginning of the recording, then the ones to come."""
        position, deadline = 0, time.monotonic() + seconds
        while True:
            with self._changed:
                while position >= len(self._changes):
                    left = deadline - time.monotonic()
                    if left <= 0 or self._stopped.is_set():
                        return
                    self._changed.wait(min(left, 1.0))
                change = self._changes[position]
            position += 1
            yield change

    def _run(self) -> None:
        try:
            for change in self._kube.watch(
                self._resource,
                self._namespace,
                seconds=FOREVER,
                name=self._name,
                labels=self._labels,
                stop=self._stopped,
            ):
                with self._changed:
                    if self._stopped.is_set():
                        return
                    self._changes.append(change)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
