"""The curves of all runs that report, in the operator's memory, and the news of them. A `History`.

Bounded over all runs: where the tables take more than `MEMORY`, the largest loses every second of its points, and where that
does not help, the run that has been silent for longest is let go (what the keeper has written of it stays). So one run has its
two thousand points, and a thousand runs at a time have coarser ones.

A run that reports for the first time since the operator started may have an earlier part of its curves in the keeper's hands;
that is fetched when somebody asks, and before it is written over.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from trainyard.api.progress import REDUCTIONS, REDUCTIONS_SEPARATOR, ProgressRecord
from trainyard.api.steps import is_train
from trainyard.api.texts import one_line
from trainyard.controller.clock import Clock
from trainyard.controller.reports.curves import Table, halve_until
from trainyard.controller.reports.history import Curves, Key, Mark, News, Point

MEMORY = 6 * 2**20
"""Bytes of all tables."""
NEWS_KEPT = 2000
"""For subscribers who come back."""
UNREAD = 500
"""News that may wait for one subscriber; then it is ended."""
SUBSCRIBERS = 200
MARK_TEXT = 200
THINNED_TO = 0.9
"""Of the memory, so that not every further point makes room again."""


class Kept(Protocol):
    """Where curves are that have been written down. Never fails: what cannot be read is empty."""

    async def read(self, key: Key, uid: str) -> Table | None:
        """None where it cannot be read just now."""
        ...


@dataclass
class Entry:
    """One run that reports, or has lately."""

    key: Key
    table: Table = field(default_factory=Table)
    whole: bool = False
    """Whether what was written down earlier is in the table."""
    changed: bool = False
    """Since it was last written down."""
    saved_at: float = 0.0
    """Monotonic."""
    ended: bool = False
    place: tuple[str, int] = ("", 0)
    """Step and attempt of the newest record."""
    checkpoint: int | None = None
    reductions: frozenset[str] = frozenset()


class HistoryMemory:
    """Takes records, answers with curves."""

    def __init__(self, *, clock: Clock, kept: Kept, memory: int = MEMORY) -> None:
        self._clock = clock
        self._kept = kept
        self._memory = memory
        self._used = 0
        self.entries: OrderedDict[str, Entry] = OrderedDict()  # by uid, the one that was heard of last at the end
        self._news: deque[News] = deque(maxlen=NEWS_KEPT)
        # Grows over restarts as well, and no two are the same as long as fewer than a million come in a second.
        self._newest = self._first = int(clock.now().timestamp() * 1_000_000)
        self._readers: set[asyncio.Queue[News | None]] = set()

    # From those who report

    def take(self, key: Key, record: ProgressRecord) -> None:
        """What a pod says."""
        entry = self._entry(key, record.run_uid)
        time, step = datetime.fromisoformat(record.time).timestamp(), record.step_number
        self._marks(entry, record, time)
        if step is None or not is_train(record.step):
            return
        values = {name: value for name, value in record.metrics.items() if value is not None}
        if record.epoch is not None:
            values["epoch"] = record.epoch
        self.add(key, record.run_uid, [Point(time, step, values)], repeats=True)

    def add(self, key: Key, uid: str, points: list[Point], *, repeats: bool = False) -> None:
        """Points, oldest first (`repeats`: see `Table.add`)."""
        entry = self._entry(key, uid)
        before = entry.table.size
        for point in points:
            if (taken := entry.table.add(point, repeats=repeats)) is not None:
                entry.changed = True
                self._tell("point", entry.key, uid, point=taken)
        self._used += entry.table.size - before
        if self._used > self._memory:
            self._make_room()

    def ended(self, uid: str) -> None:
        """The run has; what is known of it is written down once more and then let go."""
        if (entry := self.entries.get(uid)) is not None:
            entry.ended = True

    def forget(self, uid: str) -> None:
        """The run is gone, or written down."""
        if (entry := self.entries.pop(uid, None)) is not None:
            self._used -= entry.table.size

    def _entry(self, key: Key, uid: str) -> Entry:
        entry = self.entries.get(uid)
        if entry is None:
            entry = self.entries[uid] = Entry(key, saved_at=self._clock.monotonic())
            self._used += entry.table.size
        self.entries.move_to_end(uid)
        return entry

    def _marks(self, entry: Entry, record: ProgressRecord, time: float) -> None:
        place, step = (record.step, record.attempt), record.step_number or record.first_step or 0
        if place != entry.place:
            if record.attempt > 1:
                self._mark(
                    entry, record.run_uid, Mark(time, step, "restart", f"{record.step}, attempt {record.attempt}")
                )
            elif entry.place[0]:
                self._mark(entry, record.run_uid, Mark(time, step, "step", record.step))
            entry.place = place
        if record.checkpoint is not None and record.checkpoint.step != entry.checkpoint:
            entry.checkpoint = record.checkpoint.step
            mark = Mark(time, record.checkpoint.step, "checkpoint", record.checkpoint.path)
            self._mark(entry, record.run_uid, mark)
        told = str((record.effective or {}).get(REDUCTIONS) or "")
        reductions = [reduction for reduction in told.split(REDUCTIONS_SEPARATOR) if reduction]
        for reduction in reductions:
            if reduction not in entry.reductions:
                self._mark(entry, record.run_uid, Mark(time, step, "out-of-memory", reduction))
        entry.reductions |= frozenset(reductions)

    def _mark(self, entry: Entry, uid: str, mark: Mark) -> None:
        if any(
            (known.kind, known.step, known.text) == (mark.kind, mark.step, mark.text) for known in entry.table.marks
        ):
            return  # from before a restart of the operator
        mark = replace(mark, text=one_line(mark.text, limit=MARK_TEXT))
        before = entry.table.size
        entry.table.mark(mark)
        self._used += entry.table.size - before
        entry.changed = True
        self._tell("mark", entry.key, uid, mark=mark)

    def _make_room(self) -> None:
        self._used = halve_until((entry.table for entry in self.entries.values()), limit=int(THINNED_TO * self._memory))
        while self._used > self._memory and len(self.entries) > 1:
            self.forget(next(iter(self.entries)))

    # To those who show

    async def points(self, key: Key, uid: str) -> Curves:
        """See `History`."""
        entry = self.entries.get(uid)
        if entry is None:
            return (await self._kept.read(key, uid) or Table()).curves()
        await self.complete(uid)
        return entry.table.curves()

    async def complete(self, uid: str) -> bool:
        """Have what was written down earlier in the table; False where it could not be read."""
        entry = self.entries.get(uid)
        if entry is None or entry.whole:
            return True
        earlier = await self._kept.read(entry.key, uid)
        if earlier is None:
            return False
        if not entry.whole and self.entries.get(uid) is entry:
            before = entry.table.size
            entry.table = entry.table.preceded_by(earlier)
            entry.whole = True
            self._used += entry.table.size - before
        return True

    async def subscribe(self, *, uid: str | None = None, last_event_id: str | None = None) -> AsyncIterator[News]:
        """See `History`."""
        if len(self._readers) >= SUBSCRIBERS:
            return
        queue: asyncio.Queue[News | None] = asyncio.Queue()
        for news in self._since(last_event_id):
            queue.put_nowait(news)
        self._readers.add(queue)
        try:
            while (news_or_end := await queue.get()) is not None:
                if uid is None or news_or_end.uid == uid or news_or_end.kind == "reset":
                    yield news_or_end
        finally:
            self._readers.discard(queue)

    def _since(self, last_event_id: str | None) -> list[News]:
        if last_event_id is None:
            return []
        known = int(last_event_id) if last_event_id.isascii() and last_event_id.isdecimal() else 0
        oldest = int(self._news[0].id) - 1 if self._news else self._newest
        if self._newest >= known >= oldest and known >= self._first:
            return [news for news in self._news if int(news.id) > known]
        return [News(str(self._newest), "reset")]

    def _tell(self, kind: str, key: Key, uid: str, *, point: Point | None = None, mark: Mark | None = None) -> None:
        self._newest += 1
        news = News(str(self._newest), "point" if kind == "point" else "mark", key, uid, point, mark)
        self._news.append(news)
        for queue in tuple(self._readers):
            if queue.qsize() >= UNREAD:
                self._readers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(news)
