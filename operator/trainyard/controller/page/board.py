"""What the lists of the page show now: a line for each run, schedule and sweep, kept up to date by the operator's own watch.

Nothing is asked of the API server for it. A line is some hundred bytes, so a thousand runs are less than a megabyte. Readers are
told what has changed in bundles: nothing is made while nobody reads, and a bundle is made once for all of them.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainyard.controller.clock import Clock
from trainyard.controller.page.rows import Row, run_row, schedule_row, sweep_row

Kind = Literal["run", "schedule", "sweep"]
Place = tuple[Kind, str, str]
"""Kind, namespace and name."""

BUNDLE_SECONDS = 0.5
"""Between two bundles; what changes in between is told once."""
READERS = 256
"""At a time; one more is told to come again."""
REMEMBERED = 5000
"""Changes that a reader who was away can catch up with; whoever missed more loads the list anew."""


class TooManyReaders(Exception):
    """No more are served now."""


@dataclass(frozen=True)
class Bundle:
    """What has changed since the one before."""

    id: str
    """Comes back as Last-Event-ID."""
    changed: tuple[tuple[Place, Row | None], ...]
    """None: it is gone."""
    reset: bool = False
    """What was missed is not known any more: load the lists anew."""


class Board:
    """Lines by place. Takes events, like the inboxes; hands out bundles."""

    def __init__(self, *, clock: Clock, started: str) -> None:
        """`started` tells the ids of this process from those of another one."""
        self._clock = clock
        self._started = started
        self._rows: dict[Place, Row] = {}
        self._numbers = itertools.count(1)
        self._newest = 0
        self._changes: OrderedDict[Place, int] = OrderedDict()
        """Number of each place's newest change, oldest first."""
        self._forgotten = 0
        """Changes up to this number cannot be told any more."""
        self._changed = asyncio.Event()
        self._readers = 0

    # ---- events in

    def run_event(self, type_: str | None, run: Mapping[str, Any]) -> None:
        """A TrainingRun was listed (None), ADDED, MODIFIED or DELETED."""
        self._take("run", type_, run, run_row)

    def schedule_event(self, type_: str | None, schedule: Mapping[str, Any]) -> None:
        """The same of a TrainingSchedule."""
        self._take("schedule", type_, schedule, schedule_row)

    def sweep_event(self, type_: str | None, sweep: Mapping[str, Any]) -> None:
        """The same of a TrainingSweep."""
        self._take("sweep", type_, sweep, sweep_row)

    def _take(self, kind: Kind, type_: str | None, raw: Mapping[str, Any], row: Callable[[Any], Row]) -> None:
        place: Place = (kind, raw["metadata"]["namespace"], raw["metadata"]["name"])
        if type_ == "DELETED":
            if self._rows.pop(place, None) is None:
                return
        elif self._rows.get(place) == (new := row(raw)):
            return
        else:
            self._rows[place] = new
        self._newest = next(self._numbers)
        self._changes[place] = self._newest
        self._changes.move_to_end(place)
        if len(self._changes) > REMEMBERED:
            _, self._forgotten = self._changes.popitem(last=False)
        self._changed.set()

    # ---- lines out

    def rows(self, kind: Kind) -> list[Row]:
        """All of a kind, by namespace and name."""
        return [row for place, row in sorted(self._rows.items()) if place[0] == kind]

    def row(self, place: Place) -> Row | None:
        """One line."""
        return self._rows.get(place)

    def namespaces(self) -> set[str]:
        """Those in which there is something."""
        return {place[1] for place in self._rows}

    @property
    def now(self) -> str:
        """Id of what the lines show now: a reader who begins with it misses nothing."""
        return f"{self._started}-{self._newest}"

    async def bundles(self, last: str | None) -> AsyncIterator[Bundle]:
        """What changes from now on, or has changed since the bundle `last`. Raises `TooManyReaders`."""
        if self._readers >= READERS:
            raise TooManyReaders
        self._readers += 1
        try:
            seen = self._newest if last is None else self._number(last)
            if seen is None:
                seen = self._newest
                yield Bundle(self.now, (), reset=True)
            while True:
                if self._newest > seen:
                    changed = self._since(seen)
                    reset = seen < self._forgotten
                    seen = self._newest
                    yield Bundle(self.now, () if reset else changed, reset=reset)
                    await self._clock.sleep(BUNDLE_SECONDS)
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._readers -= 1

    def _since(self, seen: int) -> tuple[tuple[Place, Row | None], ...]:
        places = itertools.takewhile(lambda entry: entry[1] > seen, reversed(self._changes.items()))
        return tuple((place, self._rows.get(place)) for place, _ in places)

    def _number(self, last: str) -> int | None:
        started, _, number = last.rpartition("-")
        if started != self._started or not number.isdecimal() or len(number) > 15:
            return None
        return int(number) if self._forgotten <= int(number) <= self._newest else None
