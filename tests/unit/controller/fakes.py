"""A clock that moves on command, and an API server of loopback HTTP that answers as it is told."""

import asyncio
import heapq
import itertools
import json
import math
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from trainyard.controller.kube.cluster import Cluster

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


@dataclass
class Seen:
    """A request as the fake API server got it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeApi:
    """Answers from `answers` in order, then from `handler`, then 200 with what was sent."""

    url: str = ""
    answers: list[web.Response | Callable[[Seen], web.Response]] = field(default_factory=list)
    handler: Callable[[Seen], web.Response] | None = None
    seen: list[Seen] = field(default_factory=list)
    hold: asyncio.Event | None = None
    """Until it is set, requests get no answer."""

    def cluster(self, **kwargs: Any) -> Cluster:
        configuration = Configuration(host=self.url)
        configuration.api_key["BearerToken"] = "bearer secret-token\n"
        return Cluster(configuration, **kwargs)

    async def serve(self, request: web.Request) -> web.Response:
        text = await request.text()
        seen = Seen(
            request.method,
            request.path,
            dict(request.query),
            dict(request.headers),
            json.loads(text) if text else None,
        )
        self.seen.append(seen)
        if self.hold is not None:
            await self.hold.wait()
        if self.answers:
            answer = self.answers.pop(0)
            return answer(seen) if callable(answer) else answer
        if self.handler is not None:
            return self.handler(seen)
        return web.json_response(seen.body or {})


@asynccontextmanager
async def fake_api() -> Any:
    api = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", api.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    api.url = f"http://{host}:{port}"
    try:
        yield api
    finally:
        await runner.cleanup()


def status(
    code: int, reason: str, message: str = "said so", *, causes: list[dict[str, str]] | None = None, **details: Any
) -> web.Response:
    """An error as the API server sends it."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": {"causes": causes or [], **details},
    }
    return web.json_response(body, status=code)
