"""Has looks at sources taken, each by a process of its own. The operator itself reads no source.

The fork server is started by the first look and started anew when it is gone. What a look does beyond its limits ends that
look and becomes the error of its trigger; it is told here, because the look itself is not there any more to say it.
"""

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from contextlib import suppress

from trainyard.controller.schedules.triggers.answer import LIMIT, Answer, LookFailed, SourceDown, received
from trainyard.controller.schedules.triggers.ask import KINDS, Ask
from trainyard.controller.schedules.triggers.orders import GRACE_SECONDS, OUT_OF_MEMORY, SIZE, End, Order, Stop

log = logging.getLogger(__name__)

_FORK_SERVER = f"{__package__}.forkserver"
_PATIENCE_SECONDS = 15.0
"""Beyond the limit of a look and the grace that the fork server gives it."""
_STOP_SECONDS = 5.0
_PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
    *("PYTHONDONTWRITEBYTECODE", "SSL_CERT_FILE", "SSL_CERT_DIR", "RES_OPTIONS", "LOCALDOMAIN"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
"""Of the environment: what Python, name resolution and proxies need, and nothing that tells of the cluster."""


class _Gone(Exception):
    """The fork server has ended."""


class Looks:
    """Takes looks."""

    def __init__(self, *, memory: int) -> None:
        """`memory` is what each look may use, in bytes."""
        self._memory = memory
        self._server: _Server | None = None
        self._starting = asyncio.Lock()

    async def take(self, ask: Ask) -> Answer:
        """Raises `SourceDown` or `LookFailed`."""
        for _ in range(2):
            with suppress(_Gone):
                data, end = await (await self._running()).look(ask, memory=self._memory)
                return self._judge(ask, data, end)
        raise LookFailed("the process that takes looks at sources has ended twice; see the operator's log", "")

    async def close(self) -> None:
        """End all looks."""
        if self._server is not None:
            await self._server.close()

    async def _running(self) -> "_Server":
        async with self._starting:
            if self._server is None or self._server.gone:
                self._server = await _Server.start()
            return self._server

    def _judge(self, ask: Ask, data: bytes, end: End) -> Answer:
        kind, code = KINDS[ask.kind], os.waitstatus_to_exitcode(end.status)
        log.debug("a look at %s used %.3f s and %d KiB", kind.field, end.cpu_seconds, end.peak_kib)
        if end.failed:
            raise LookFailed(f"no process can be made for a look: {end.failed}", "")
        if end.late or code in (-signal.SIGALRM, -signal.SIGXCPU):
            limit = f"{kind.cpu_seconds} s of processor time" if code == -signal.SIGXCPU else f"{kind.seconds} s"
            raise SourceDown(f"{kind.field}: the look took more than {limit} and was ended; {kind.way_out}")
        if code == OUT_OF_MEMORY or code in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT):
            raise SourceDown(
                f"{kind.field}: what the source sends needs more than {self._memory >> 20} MiB of memory; {kind.way_out}, or "
                "have TRAINYARD_TRIGGERS_MEMORY_MIB raised"
            )
        if code != 0:
            raise LookFailed(f"the process of the look ended with exit code {code}", "")
        return received(data)


class _Server:
    """A running fork server."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._numbers = itertools.count(1)
        self._ends: dict[int, asyncio.Future[End]] = {}
        self.gone = False
        asyncio.get_running_loop().add_reader(control.fileno(), self._hear)

    @classmethod
    async def start(cls) -> "_Server":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", _FORK_SERVER),
                    env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # the operator's signals are not meant for it
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, ours)

    async def look(self, ask: Ask, *, memory: int) -> tuple[bytes, End]:
        """What a look sent, and how it ended. Raises `_Gone`."""
        kind, number = KINDS[ask.kind], next(self._numbers)
        end = self._ends[number] = asyncio.get_running_loop().create_future()
        try:
            pipe = self._begin(Order(number, ask.kind, kind.seconds, kind.cpu_seconds, memory))
            async with asyncio.timeout(kind.seconds + GRACE_SECONDS + _PATIENCE_SECONDS):
                data = await _spoken(pipe, ask.sent())
                return data, End(number) if len(data) > LIMIT else await end
        except TimeoutError:
            return b"", End(number, late=True)
        finally:
            await self._end(number, end)

    async def close(self) -> None:
        """End it, and with it all looks."""
        self._lose()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _begin(self, order: Order) -> socket.socket:
        """Have a look's process made. Returns our end of its pipe."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._send(order, theirs)
            except _Gone:
                ours.close()
                raise
        return ours

    async def _end(self, number: int, end: asyncio.Future[End]) -> None:
        """A look that nobody waits for any more gives its slot back only when its process is gone."""
        if not end.done():
            with suppress(_Gone):
                self._send(Stop(number))
            await asyncio.wait({end}, timeout=_STOP_SECONDS)
            if not end.done():
                log.error("a look does not end; its fork server is killed and started anew")
                with suppress(ProcessLookupError):
                    self._process.kill()
        elif not end.cancelled():
            end.exception()  # seen
        self._ends.pop(number, None)

    def _send(self, order: Order | Stop, pipe: socket.socket | None = None) -> None:
        if self.gone:
            raise _Gone
        try:
            socket.send_fds(self._control, [order.sent()], [pipe.fileno()] if pipe else [])
        except OSError:
            self._lose()
            raise _Gone from None

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            try:
                data = self._control.recv(SIZE)
            except ConnectionError:
                data = b""
            if not data:
                log.warning("the fork server of the looks has ended; the next look starts another one")
                self._lose()
                return
            told = End.received(data)
            end = self._ends.get(told.number)
            if end is not None and not end.done():
                end.set_result(told)

    def _lose(self) -> None:
        if not self.gone:
            self.gone = True
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            for end in self._ends.values():
                if not end.done():
                    end.set_exception(_Gone())


async def _spoken(pipe: socket.socket, said: bytes) -> bytes:
    """Say something, and hear what is answered: to its end, or a byte beyond the limit."""
    try:
        reader, writer = await asyncio.open_unix_connection(sock=pipe)
    except BaseException:
        pipe.close()
        raise
    data = b""
    try:
        writer.write(said)
        writer.write_eof()
        while len(data) <= LIMIT and (piece := await reader.read(LIMIT + 1 - len(data))):
            data += piece
    except ConnectionError:
        return b""  # it has ended before it heard all; how, is told elsewhere
    finally:
        writer.transport.abort()
    return data
