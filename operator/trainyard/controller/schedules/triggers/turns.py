"""Whose turn it is: a few looks at a time, and never all of them for one namespace.

A namespace gets another slot only while more of them are free than it has already. So one that keeps its slots busy leaves
half of them to the others, two leave a third, and whoever has none comes next. Among namespaces that wait, each gets its turn
in order, however many looks one of them has waiting.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Gives out slots."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By namespace; who has waited longest for a turn comes first."""

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a slot and hold it."""
        await self._acquire(namespace)
        try:
            yield
        finally:
            self._release(namespace)

    async def _acquire(self, namespace: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(turn)
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(namespace)
            else:
                self._forget(namespace, turn)
            raise

    def _release(self, namespace: str) -> None:
        self._free += 1
        self._held[namespace] -= 1
        if not self._held[namespace]:
            del self._held[namespace]
        self._grant()

    def _forget(self, namespace: str, turn: asyncio.Future[None]) -> None:
        if turn in (queue := self._waiting.get(namespace, deque())):
            queue.remove(turn)
            if not queue:
                del self._waiting[namespace]

    def _grant(self) -> None:
        while (namespace := self._next()) is not None:
            queue = self._waiting[namespace]
            turn = queue.popleft()
            self._waiting.move_to_end(namespace)
            if not queue:
                del self._waiting[namespace]
            if not turn.done():
                self._free -= 1
                self._held[namespace] += 1
                turn.set_result(None)

    def _next(self) -> str | None:
        return next((n for n in self._waiting if self._free > self._held[n]), None)
