"""Windows of time, and the pieces they are cut into."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from trainyard.api.run.collectors import Lookback
from trainyard.trainer.data.collect import Window


def window_of(lookback: Lookback, moment: datetime) -> Window:
    """The stretch that ends at `until`, or at the run's own time; in whole seconds."""
    end = datetime.fromisoformat(lookback.until) if lookback.until else moment
    return Window(int((end - timedelta(days=lookback.days)).timestamp()), int(end.timestamp()))


def align(window: Window, step: int) -> Window:
    """The same window moved back to a multiple of the step, so that points lie at round times."""
    end = window.end - window.end % step
    return Window(end - (window.end - window.start), end)


def spans(window: Window, length: int) -> Iterator[Window]:
    """The window in pieces of `length` seconds, oldest first; counted from the end, so the oldest may be shorter."""
    start = window.start
    first = (window.end - window.start) % length
    if first:
        yield Window(start, start + first)
    for at in range(start + first, window.end, length):
        yield Window(at, at + length)
