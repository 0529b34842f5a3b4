"""A clock that moves on command, and waiting for what other tasks do meanwhile."""

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class FakeTimer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Time stands still until `advance`, which fires what has become due, in order."""

    def __init__(self) -> None:
        self.time = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.time)

    def monotonic(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(when, callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self.call_at(self.time + seconds, lambda: woken.done() or woken.set_result(None))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move on; all tasks get to run after each timer and at the end."""
        end = self.time + seconds
        await settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self.time = max(self.time, when)
            if not timer.cancelled:
                timer.callback()
                await settle()
        self.time = end
        await settle()

    def until_next(self) -> float:
        """Seconds to the next timer; infinity without one."""
        return max(0.0, self._timers[0][0] - self.time) if self._timers else math.inf

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self._timers)


async def settle(rounds: int = 20) -> None:
    """Let every task run until it waits. Enough for code that does no real I/O."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object], seconds: float = 5) -> None:
    """Until it holds, while real I/O on loopback goes on; there is no event to wait for in a clock's or a server's list."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
