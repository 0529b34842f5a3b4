"""How often progress may wake a reconcile.

Pods report every two seconds; every look costs reads and mostly a write. A change of state (step, phase, checkpoint) is
looked at once. Numbers wait for their run's interval, which grows with the number of active runs so that all together
stay within a budget of writes per second.
"""

from collections import OrderedDict
from collections.abc import Callable

from trainyard.controller.clock import Clock
from trainyard.controller.reports.progress_store import KEPT, Accepted, ProgressStore

Key = tuple[str, str]

SOON = 0.2
"""Seconds; lets several reports of one moment be seen in one look."""
MARGIN = 0.25
"""Seconds that a look comes later than the interval, because the status may only be written a whole interval after the
last write, and that came a little after its look began."""


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
        self._looks: OrderedDict[str, float] = OrderedDict()  # uid: its newest look, often one yet to come

    def interval(self) -> float:
        """Seconds between two looks at one run's numbers, at the present load."""
        return max(self._interval, self._store.active() / self._budget)

    def reported(self, key: Key, uid: str, accepted: Accepted) -> None:
        """A record of this run has come in."""
        if accepted in (Accepted.OUTDATED, Accepted.GONE):
            return
        now = self._clock.monotonic()
        look = self._looks.get(uid, float("-inf"))
        if accepted is Accepted.NEW:
            look = now + SOON
        elif look <= now:
            look = max(now + SOON, look + self.interval() + MARGIN)
        # Also when it is planned already: the queue forgets a planned look when the run is looked at for another reason.
        self._add_after(key, look - now)
        self._looks[uid] = look
        self._looks.move_to_end(uid)
        if len(self._looks) > KEPT:
            self._looks.popitem(last=False)
