"""The ports of the process: one application on each, and what anybody who connects may take from us.

Every pod of the cluster can connect, so a connection is bounded before a word of it is understood: it carries one
request, lives for a few seconds (header, body and answer together), and there are only so many of one address and in
all. Those that are too many are closed at once; a pod that reports sends again. What comes in is read in small pieces,
because what some hundred strangers could send before we look at it would be more than the operator's memory.
"""

import asyncio
import errno
import logging
import socket
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
BACKLOG = 1024
"""Connections that wait in the kernel until they are accepted. With a short queue a flood makes others wait for a second,
after which they try again."""
AT_ONCE = 100
"""Connections that are refused before others have their turn in the loop."""
LINE_LENGTH, HEADERS = 2048, 32
"""Longest request line and longest header, and how many headers."""
HEAD = 8 * 1024
"""Bytes of them all."""
_HEAD_ENDS = b"\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

OnDropped = Callable[[str], None]
"""Called for each connection that is closed without an answer: `address` and `all` (there were too many), `deadline`."""


@dataclass(frozen=True)
class Limits:
    """What connections may take. Of one address few are enough for a probe, a scrape, or a pod that reports."""

    in_all: int = 512
    of_one_address: int = 8
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
        cancels: bool = False,
    ) -> None:
        """`cancels`: whoever closes his connection ends the work on his answer."""
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            handler_cancellation=cancels,
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
        self._door: _Door | None = None

    async def start(self) -> int:
        """Listen; returns the port (its own choice when 0 was asked for). Raises `OSError` when it is taken."""
        await self._runner.setup()
        listening = _listen(self._host, self._port)
        speak = cast(Callable[[], asyncio.Protocol], self._runner.server)
        self._door = _Door(listening, speak, limits=self._limits, on_dropped=self._on_dropped)
        port: int = listening.getsockname()[1]
        return port

    async def stop(self) -> None:
        """Answer what has been asked already, then close."""
        if self._door is not None:
            self._door.close()
        await self._runner.cleanup()


def last(response: web.Response) -> web.Response:
    """The only answer of its connection."""
    response.force_close()
    return response


def _listen(host: str | None, port: int) -> socket.socket:
    """On one address, or on all of them, of both families where there are two."""
    if host is None and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return socket.create_server((host or "", port), backlog=BACKLOG)


class _Door:
    """Lets connections in, knows since when they are, and ends those that stay too long.

    asyncio's own server makes a transport and two tasks of each connection, also of one that is closed at once. Here one
    too many costs an accept and a close, so a flood of them leaves the loop time for others.
    """

    def __init__(
        self,
        listening: socket.socket,
        speak: Callable[[], asyncio.Protocol],
        *,
        limits: Limits,
        on_dropped: OnDropped,
    ) -> None:
        self.speak = speak
        self.piece = memoryview(bytearray(PIECE))
        """One for all: it is copied before the next connection is read."""
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._limits = limits
        self._dropped = on_dropped
        self._since: dict[_Connection, float] = {}
        self._of_address: dict[str, int] = {}
        self._again: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._open()

    def _open(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Nobody comes in any more; those who are in stay."""
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for timer in (self._again, self._sweeping):
            if timer is not None:
                timer.cancel()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, (address, *_) = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no more descriptors, mostly: without a pause the loop would do nothing else
                log.error("no connection can be taken for a second: %s", error)
                self._loop.remove_reader(self._listening)
                self._again = self._loop.call_later(1.0, self._open)
                return
            if self._of_address.get(address, 0) >= self._limits.of_one_address:
                why = "address"
            elif len(self._since) >= self._limits.in_all:
                why = "all"
            else:
                self._enter(accepted, address)
                return  # the loop comes back at once if there are more
            accepted.close()
            self._dropped(why)

    def _enter(self, accepted: socket.socket, address: str) -> None:
        connection = _Connection(self, address)
        self._since[connection] = self._loop.time()
        self._of_address[address] = self._of_address.get(address, 0) + 1
        if self._sweeping is None:
            self._plan_sweep()
        self._loop.create_task(self._connect(connection, accepted))

    async def _connect(self, connection: "_Connection", accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            accepted.close()
            self.left(connection)

    def left(self, connection: "_Connection") -> None:
        """Its place is free."""
        if self._since.pop(connection, None) is None:
            return
        others = self._of_address.pop(connection.address) - 1
        if others:
            self._of_address[connection.address] = others

    def _plan_sweep(self) -> None:
        # One timer for all: most connections are gone long before, and a timer of its own costs more than the rest here.
        self._sweeping = self._loop.call_later(self._limits.seconds / 10, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        latest = self._loop.time() - self._limits.seconds
        for connection in [c for c, since in takewhile(lambda entry: entry[1] <= latest, self._since.items())]:
            connection.abort()
            self._dropped("deadline")
        if self._since:
            self._plan_sweep()


class _Connection(asyncio.BufferedProtocol):
    """Between the socket and the HTTP server's own protocol."""

    __slots__ = ("_door", "_http", "_in_head", "_tail", "_transport", "address")

    def __init__(self, door: _Door, address: str) -> None:
        self.address = address
        self._door = door
        self._http = door.speak()
        self._transport: asyncio.Transport | None = None
        self._in_head: int | None = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._http.connection_made(transport)

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._door.piece

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._door.piece[:nbytes])
        if self._in_head is not None and not self._fits(data):
            return
        self._http.data_received(data)

    def _fits(self, data: bytes) -> bool:
        """Whether the head may go on. The HTTP server bounds its lines; sixty thousand bytes of them are still too many."""
        assert self._in_head is not None
        if _HEAD_ENDS in self._tail + data:
            self._in_head = None
            return True
        self._in_head += len(data)
        self._tail = data[1 - len(_HEAD_ENDS) :]
        if self._in_head > HEAD and self._transport is not None:
            self._transport.write(_TOO_LARGE)
            self._transport.close()
        return self._in_head <= HEAD

    def eof_received(self) -> bool | None:
        return self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
        self._door.left(self)
