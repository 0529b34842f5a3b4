"""How often the numbers of a run are written, and when a report is worth a look. Both are one question, answered here.

Pods report every two seconds; every look costs reads and mostly a write. A change of state (step, phase, checkpoint) is
looked at once; a pod that has one in each of its records is looked at a few times, and then as often as an honest one
reports. Numbers wait until a whole interval has passed since they were last written, and the interval grows with the number of
active runs, so that all together stay within a budget of writes per second.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from trainyard.controller.clock import Clock
from trainyard.controller.reports.progress_store import KEPT, Accepted

SOON = 0.2
"""Seconds; lets several reports of one moment be seen in one look."""
EARLY = 0.05
"""Seconds by which a timer may fire before its time without its look having been for nothing."""
NEVER = float("-inf")
CHANGES_AT_ONCE = 5
CHANGE_SECONDS = 2.0
"""So many changes of a run's state are looked at as they come, and further ones so many seconds apart."""


@dataclass(frozen=True)
class _Paced:
    """Monotonic times of one run."""

    look: float = NEVER
    """Its newest look because of a report; often one that is yet to come."""
    written: float = NEVER
    """When its status was last written."""
    spent: float = NEVER
    """When all its changes at once are there again."""


class Pace:
    """The pace of all runs. Only for pacing, so what a restart forgets does no harm."""

    def __init__(
        self, *, active: Callable[[], int], clock: Clock, interval_seconds: float, writes_per_second: float
    ) -> None:
        """`active` tells how many runs share the budget."""
        self._active = active
        self._clock = clock
        self._shortest = interval_seconds
        self._budget = writes_per_second
        self._runs: OrderedDict[str, _Paced] = OrderedDict()  # by uid, the one that was heard of last at the end

    def interval(self) -> float:
        """Seconds between two writes of one run's numbers, at the present load."""
        return max(self._shortest, self._active() / self._budget)

    def pause(self, uid: str) -> float:
        """Seconds until mere numbers of this run may be written; 0 for now."""
        left = self._runs.get(uid, _Paced()).written + self.interval() - self._clock.monotonic()
        return left if left > EARLY else 0.0

    def wrote(self, uid: str) -> None:
        """Its status has been written, numbers and all."""
        self._keep(uid, replace(self._runs.get(uid, _Paced()), written=self._clock.monotonic()))

    def look_in(self, uid: str, accepted: Accepted) -> float | None:
        """Seconds until the run is to be looked at because of a report; None where that says nothing new.

        The same look is named again and again until it is due: the queue forgets a planned look when the run is looked at
        for another reason.
        """
        if accepted in (Accepted.OUTDATED, Accepted.GONE):
            return None
        now, paced = self._clock.monotonic(), self._runs.get(uid, _Paced())
        if accepted is Accepted.NEW:
            paced = _after_a_change(paced, now)
        elif paced.look <= now:
            paced = replace(paced, look=max(now + SOON, max(paced.look, paced.written) + self.interval()))
        self._keep(uid, paced)
        return paced.look - now

    def forget(self, uid: str) -> None:
        """The run has ended or is gone."""
        self._runs.pop(uid, None)

    def _keep(self, uid: str, paced: _Paced) -> None:
        self._runs[uid] = paced
        self._runs.move_to_end(uid)
        if len(self._runs) > KEPT:
            self._runs.popitem(last=False)


def _after_a_change(paced: _Paced, now: float) -> _Paced:
    """A look that is planned anyway and soon enough serves; another one costs one of the changes at once."""
    spent = max(now, paced.spent)
    look = max(now, spent - (CHANGES_AT_ONCE - 1) * CHANGE_SECONDS) + SOON
    if now < paced.look <= look:
        return paced
    return replace(paced, look=look, spent=spent + CHANGE_SECONDS)
