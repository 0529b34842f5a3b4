"""The ports of the process: one application on each, and what anybody who connects may take from us.

Every pod of the cluster can connect, so a connection is bounded before a word of it is understood: it carries one
request, lives for a few seconds (header, body and answer together), and there are only so many of one address and in
all. Those that are too many are closed at once; a pod that reports sends again. What comes in is read in small pieces,
because what some hundred strangers could send before we look at it would be more than the operator's memory.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import cast

from aiohttp import web

from trainyard.controller.logs import seldom

log = logging.getLogger(__name__)
log.addFilter(seldom(seconds=10.0))  # the HTTP server reports every malformed request, with a traceback

LINGER_SECONDS = 1.0
"""How long the rest of a refused body is read and thrown away, so that its sender gets to read the answer."""
PIECE = 16 * 1024
"""Bytes that are taken from a connection at a time."""
LINE_LENGTH, HEADERS = 2048, 32
"""Longest request line and longest header, and how many headers."""

OnDropped = Callable[[str], None]
"""Called for each connection that is closed without an answer: `address` and `all` (there were too many), `deadline`."""


@dataclass(frozen=True)
class Limits:
    """What connections may take."""

    in_all: int = 512
    of_one_address: int = 32
    seconds: float = 10.0
    """From the beginning of a connection to its end, whatever has come by then."""


class Served:
    """One application on one port."""

    def __init__(
        self,
        application: web.Application,
        *,
        port: int,
        host: str | None = None,
        limits: Limits = Limits(),
        on_dropped: OnDropped = lambda why: None,
    ) -> None:
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=2.0,
            logger=log,
            keepalive_timeout=0,
            tcp_keepalive=False,
            lingering_time=LINGER_SECONDS,
            read_bufsize=PIECE,
            max_line_size=LINE_LENGTH,
            max_field_size=LINE_LENGTH,
            max_headers=HEADERS,
        )
        self._host = host
        self._port = port
        self._limits = limits
        self._on_dropped = on_dropped
        self._listening: asyncio.Server | None = None
        self._door: _Door | None = None

    async def start(self) -> int:
        """Listen; returns the port (its own choice when 0 was asked for). Raises `OSError` when it is taken."""
        await self._runner.setup()
        speak = cast(Callable[[], asyncio.Protocol], self._runner.server)
        door = self._door = _Door(speak, limits=self._limits, on_dropped=self._on_dropped)
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(lambda: _Connection(door), self._host, self._port)
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Answer what has been asked already, then close."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()
        if self._door is not None:
            self._door.close()


def last(response: web.Response) -> web.Response:
    """The only answer of its connection."""
    response.force_close()
    return response


class _Door:
    """Who is in, and since when."""

    def __init__(self, speak: Callable[[], asyncio.Protocol], *, limits: Limits, on_dropped: OnDropped) -> None:
        self.speak = speak
        self.dropped = on_dropped
        self.piece = memoryview(bytearray(PIECE))
        """One for all: it is copied before the next connection is read."""
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._since: dict[_Connection, float] = {}
        self._of_address: dict[str, int] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def too_many(self, address: str) -> str | None:
        """Why nobody from this address comes in now."""
        if self._of_address.get(address, 0) >= self._limits.of_one_address:
            return "address"
        return "all" if len(self._since) >= self._limits.in_all else None

    def entered(self, connection: "_Connection") -> None:
        self._since[connection] = self._loop.time()
        self._of_address[connection.address] = self._of_address.get(connection.address, 0) + 1
        if self._sweeping is None:
            self._plan_sweep()

    def left(self, connection: "_Connection") -> None:
        del self._since[connection]
        others = self._of_address.pop(connection.address) - 1
        if others:
            self._of_address[connection.address] = others

    def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _plan_sweep(self) -> None:
        # One timer for all: most connections are gone long before, and a timer of its own costs more than the rest here.
        self._sweeping = self._loop.call_later(self._limits.seconds / 10, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        latest = self._loop.time() - self._limits.seconds
        for connection in [c for c, since in takewhile(lambda entry: entry[1] <= latest, self._since.items())]:
            connection.abort()
            self.dropped("deadline")
        if self._since:
            self._plan_sweep()


class _Connection(asyncio.BufferedProtocol):
    """Between the socket and the HTTP server's own protocol, which is only made for those who come in."""

    __slots__ = ("_door", "_http", "_transport", "address")

    def __init__(self, door: _Door) -> None:
        self._door = door
        self._http: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        door = self._door
        self._transport = cast(asyncio.Transport, transport)
        self.address: str = (transport.get_extra_info("peername") or ("",))[0]
        if (why := door.too_many(self.address)) is not None:
            self.abort()
            door.dropped(why)
            return
        door.entered(self)
        self._http = door.speak()
        self._http.connection_made(transport)

    def abort(self) -> None:
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._door.piece

    def buffer_updated(self, nbytes: int) -> None:
        if self._http is not None:
            self._http.data_received(bytes(self._door.piece[:nbytes]))

    def eof_received(self) -> bool | None:
        return None if self._http is None else self._http.eof_received()

    def pause_writing(self) -> None:
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        if self._http is not None:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._http is not None:
            self._http.connection_lost(exc)
            self._http = None
            self._door.left(self)
