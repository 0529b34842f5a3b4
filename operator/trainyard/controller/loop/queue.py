"""The work queue: which run is looked at next, and by whom.

Events come in by the thousand and say little; a reconcile is dear and sees everything. So an event only names a key.
A key waits at most once, is worked on by one worker at a time, and when it is named again meanwhile it is worked on
once more afterwards, so no event is lost and none is handled twice. Failures come back with growing pauses.

There are two lanes. What people did (a new or changed run) is urgent; what their pods did (child events) is not, so a
burst of new runs is not held up by the thousands of events of its own children. One in `FAIRNESS` picks is taken from
the other lane, so that it never starves.

Everything runs in one event loop; no method but `run` and `drain` awaits anything.
"""

import asyncio
import heapq
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from trainyard.controller.clock import Clock, SystemClock, Timer

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

BACKOFF_FIRST = 1.0
BACKOFF_LIMIT = 300.0
JITTER = 0.2
"""Pauses vary by this share in both directions, so that runs that failed together do not come back together."""
FAIRNESS = 16


class Observer(Protocol):
    """What the queue tells about each call of the handler."""

    def __call__(self, key: Any, *, seconds: float, delay: float | None, error: BaseException | None) -> None:
        """A handler has ended after so many seconds, and `key` comes back after `delay` seconds, if at all."""


def log_failure(key: Any, *, seconds: float, delay: float | None, error: BaseException | None) -> None:
    """The observer that says nothing unless something failed."""
    if error is not None:
        log.warning("%s failed after %.1f s, next try in %.1f s", key, seconds, delay, exc_info=error)


class WorkQueue(Generic[K]):
    """A deduplicating queue of keys with delays, retries and two lanes."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        retry_after: Callable[[BaseException], float | None] = lambda error: None,
        observe: Observer = log_failure,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`retry_after` tells the least pause that an error asks for, if any; `jitter` gives numbers from [0, 1)."""
        self._clock = clock or SystemClock()
        self._retry_after = retry_after
        self._observe = observe
        self._jitter = jitter
        self._lanes: tuple[deque[K], deque[K]] = (deque(), deque())  # urgent, others; may hold outdated entries
        self._ready: dict[K, tuple[bool, float]] = {}  # key: (urgent, ready since)
        self._running: dict[K, float] = {}  # key: started at
        self._again: dict[K, bool] = {}  # named while running; the value is its lane
        self._due: dict[K, float] = {}  # delayed keys
        self._heap: list[tuple[float, int, K]] = []  # the same by time; may hold outdated entries
        self._sequence = 0
        self._failures: dict[K, int] = {}
        self._timer: Timer | None = None
        self._timer_at = float("inf")
        self._picks = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._stopped = False
        self._idle = asyncio.Event()
        self._idle.set()

    # Putting in

    def add(self, key: K, *, urgent: bool = False) -> None:
        """Have it worked on as soon as a worker is free."""
        if self._stopped:
            return
        if key in self._running:
            self._again[key] = urgent or self._again.get(key, False)
            return
        waiting = self._ready.get(key)
        if waiting is None:
            self._ready[key] = (urgent, self._clock.monotonic())
        elif urgent and not waiting[0]:
            self._ready[key] = (True, waiting[1])  # its entry in the other lane is outdated now
        else:
            return
        self._lanes[0 if urgent else 1].append(key)
        self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Have it worked on after so long. Of several delays of a key the earliest holds."""
        if self._stopped:
            return
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + seconds
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        self._arm()

    # Working

    async def run(self, handler: Callable[[K], Awaitable[float | None]], *, workers: int) -> None:
        """Work until `stop`. The handler returns after how many seconds it wants to see the key again, or None."""
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(handler), name=f"worker-{number}")

    def stop(self) -> None:
        """Take no more keys; handlers that run go on to their end. What waits is forgotten."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def drain(self, seconds: float) -> bool:
        """`stop`, then wait for the running handlers; False when some still run after so many seconds."""
        self.stop()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    # For the watchdog and the metrics

    def depth(self) -> int:
        """Keys that are ready and wait for a worker."""
        return len(self._ready)

    def crowded(self) -> bool:
        """Whether urgent keys wait for a worker. Now and then one that has been worked on already still counts."""
        return bool(self._lanes[0])

    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._due)

    def running(self) -> int:
        """Keys that are being worked on."""
        return len(self._running)

    def oldest_ready(self) -> float:
        """Seconds that the key which waits longest has been ready; 0 when none waits."""
        since = min((since for _, since in self._ready.values()), default=None)
        return 0.0 if since is None else self._clock.monotonic() - since

    def longest_running(self) -> float:
        """Seconds that the slowest handler has been at work; 0 when none is."""
        started = min(self._running.values(), default=None)
        return 0.0 if started is None else self._clock.monotonic() - started

    # Inside

    async def _work(self, handler: Callable[[K], Awaitable[float | None]]) -> None:
        while not self._stopped:
            key = self._take()
            if key is None:
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter
                continue
            started = self._running[key]
            delay: float | None = None
            failure: BaseException | None = None
            try:
                delay = await handler(key)
                self._failures.pop(key, None)
            except Exception as error:
                failure, delay = error, self._backoff(key, error)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Something inside the handler was cancelled, not this worker: without this, the worker would be gone.
                failure, delay = error, self._backoff(key, error)
            finally:
                # No await between here and the end of _finish, so that no key is ever lost in between.
                self._finish(key, delay)
            self._observe(key, seconds=self._clock.monotonic() - started, delay=delay, error=failure)

    def _take(self) -> K | None:
        self._picks += 1
        urgent, others = self._lanes
        for lane in (others, urgent) if self._picks % FAIRNESS == 0 else (urgent, others):
            while lane:
                key = lane.popleft()
                waiting = self._ready.get(key)
                if waiting is None or waiting[0] != (lane is urgent):
                    continue  # it has moved to the urgent lane, and may have been worked on already
                del self._ready[key]
                # What is read from now on is newer than every event that has asked for a later look.
                self._due.pop(key, None)
                self._running[key] = self._clock.monotonic()
                self._idle.clear()
                return key
        return None

    def _finish(self, key: K, delay: float | None) -> None:
        del self._running[key]
        if not self._running:
            self._idle.set()
        again = self._again.pop(key, None)
        if again is not None:
            self.add(key, urgent=again)
        if delay is not None:
            self.add_after(key, delay)

    def _backoff(self, key: K, error: BaseException) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(BACKOFF_FIRST * 2.0 ** min(failures - 1, 30), BACKOFF_LIMIT)
        pause *= 1 + JITTER * (2 * self._jitter() - 1)
        return max(min(pause, BACKOFF_LIMIT), self._retry_after(error) or 0.0)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        """Set the timer to the earliest delayed key."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if not self._heap or self._heap[0][0] >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._heap[0][0]
        self._timer = self._clock.call_at(self._timer_at, self._fire)

    def _fire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._arm()
