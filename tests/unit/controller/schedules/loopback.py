"""Servers on loopback that answer everything with one function."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Serve(Protocol):
    """Starts a server and gives its address."""

    async def __call__(self, handler: Handler, *, host: str = "127.0.0.1") -> str: ...


@asynccontextmanager
async def servers() -> AsyncIterator[Serve]:
    """All that are started end here."""
    runners = []

    async def start(handler: Handler, *, host: str = "127.0.0.1") -> str:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await handler(request)

        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        runners.append(runner)
        return f"http://{host}:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()
