"""How often progress may wake a reconcile.

Pods report every two seconds; every look costs reads and mostly a write. A change of state (step, phase, checkpoint) is
looked at once. Numbers wait for their run's interval, which grows with the number of active runs so that all together
stay within a budget of writes per second.
"""

from collections import OrderedDict
from collections.abc import Callable

from trainyard.controller.clock import Clock
from trainyard.controller.progress_store import KEPT, Accepted, ProgressStore

Key = tuple[str, str]

SOON = 0.2
"""Seconds; lets several reports of one moment be seen in one look."""


class ProgressPacer:
    """Turns accepted records into delayed keys."""

    def __init__(
        self,
        *,
        add_after: Callable[[Key, float], None],
        store: ProgressStore,
        clock: Clock,
        interval_seconds: float,
        writes_per_second: float,
    ) -> None:
        self._add_after = add_after
        self._store = store
        self._clock = clock
        self._interval = interval_seconds
        self._budget = writes_per_second
        self._next: OrderedDict[str, float] = OrderedDict()  # uid: when its numbers may be looked at again

    def interval(self) -> float:
        """Seconds between two looks at one run's numbers, at the present load."""
        return max(self._interval, self._store.active() / self._budget)

    def reported(self, key: Key, uid: str, accepted: Accepted) -> None:
        """A record of this run has come in."""
        if accepted in (Accepted.OUTDATED, Accepted.GONE):
            return
        now = self._clock.monotonic()
        due = self._next.get(uid, now)
        if accepted is Accepted.NEW or due <= now:
            self._add_after(key, SOON)
            # A little later than the interval, because the status is written a little after the look began.
            self._next[uid] = now + SOON + self.interval()
            self._next.move_to_end(uid)
            if len(self._next) > KEPT:
                self._next.popitem(last=False)
        else:
            self._add_after(key, due - now)
