"""What anybody who connects may take, over real sockets on loopback."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.unit.controller.fake_clock import eventually
from trainyard.controller.ports import HEADERS, LINE_LENGTH, Limits, Served, last

ASKED = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Port:
    """A port, what was read by its application, and why connections were dropped."""

    def __init__(self, number: int):
        self.number = number
        self.dropped: list[str] = []

    async def connect(self, *, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.number, local_addr=(source, 0))

    async def ask(self, data: bytes = ASKED, *, source: str = "127.0.0.1", within: float = 5.0) -> bytes:
        """All that comes back until the other side closes; the own side stays open."""
        reader, writer = await self.connect(source=source)
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), within)
        except ConnectionError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def port(**limits: float) -> AsyncIterator[Port]:
    async def answer(request: web.Request) -> web.Response:
        return last(web.Response(text=str(len(await request.read()))))

    app = web.Application(client_max_size=2**21)
    app.router.add_route("*", "/", answer)
    opened = Port(0)
    served = Served(app, port=0, host="127.0.0.1", limits=Limits(**limits), on_dropped=opened.dropped.append)
    opened.number = await served.start()
    before = asyncio.all_tasks()
    yield opened
    await eventually(lambda: asyncio.all_tasks() <= before)
    await served.stop()


async def test_a_connection_carries_one_request():
    async with port() as opened:
        answer = await opened.ask(ASKED * 3)
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"Connection: close" in answer


async def test_half_a_header_and_half_a_body_end_at_the_deadline():
    async with port(seconds=0.4) as opened:
        halves = [b"GET / HTTP/1.1\r\nHo", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1234", b""]
        began = asyncio.get_running_loop().time()
        assert await asyncio.gather(*(opened.ask(half) for half in halves)) == [b""] * 3
        assert asyncio.get_running_loop().time() - began < 2
        assert opened.dropped == ["deadline"] * 3


async def test_who_sends_a_byte_now_and_then_wins_no_time():
    async with port(seconds=0.4) as opened:
        _, writer = await opened.connect()
        began = asyncio.get_running_loop().time()
        while not writer.is_closing() and asyncio.get_running_loop().time() - began < 5:
            writer.write(b"G")
            await asyncio.sleep(0.02)
        assert asyncio.get_running_loop().time() - began < 2
        writer.close()


async def test_too_many_of_one_address_are_closed_and_others_come_in():
    async with port(of_one_address=3) as opened:
        held = [await opened.connect() for _ in range(3)]
        assert await opened.ask() == b""
        assert opened.dropped == ["address"]
        assert status(await opened.ask(source="127.0.0.2")) == 200
        held.pop()[1].close()
        await answered(opened)
        for _, writer in held:
            writer.close()


async def test_in_all_there_are_only_so_many():
    async with port(in_all=3) as opened:
        held = [await opened.connect(source=f"127.0.0.{n}") for n in (2, 3, 4)]
        assert await opened.ask() == b""
        assert opened.dropped == ["all"]
        held.pop()[1].close()
        await answered(opened)
        for _, writer in held:
            writer.close()


async def answered(opened: Port) -> None:
    """The next one gets an answer, as soon as the server has seen that another has left."""
    async with asyncio.timeout(5):
        while status(await opened.ask()) != 200:
            pass


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


LONG = LINE_LENGTH + 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * LONG,
        b"GET / HTTP/1.1\r\nHost: h\r\n" + b"x" * LONG,
        b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X%d: x\r\n" % n for n in range(HEADERS)) + b"\r\n",
        b"GET /" + b"x" * LONG,
    ],
    ids=["value", "name", "number", "address"],
)
async def test_a_header_is_bounded_before_it_is_complete(data: bytes):
    async with port() as opened:
        assert status(await opened.ask(data)) == 400


async def test_garbage_is_an_answer_and_a_short_line_now_and_then(caplog):
    with caplog.at_level(logging.DEBUG):
        async with port() as opened:
            assert {status(await opened.ask(b"\x16\x03\x01 no HTTP\r\n\r\n")) for _ in range(50)} == {400}
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) <= 1
    assert all(record.exc_info is None and len(record.getMessage()) < 500 for record in lines)


async def test_what_was_too_large_for_one_piece_is_read_whole():
    async with port() as opened:
        body = b"x" * 1_000_000
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert (await opened.ask(head + body)).endswith(b"\r\n\r\n1000000")


async def test_without_descriptors_it_waits_and_goes_on(monkeypatch):
    accept = socket.socket.accept
    lacking = [OSError(errno.EMFILE, "Too many open files")]

    def scarce(listening: socket.socket):
        if lacking:
            raise lacking.pop()
        return accept(listening)

    async with port() as opened:
        monkeypatch.setattr(socket.socket, "accept", scarce)
        assert status(await opened.ask()) == 200
    assert lacking == []


async def test_a_head_is_bounded_in_all_and_its_end_is_found_wherever_it_is_cut():
    line = b"X-%d: " + b"x" * 1000 + b"\r\n"
    async with port() as opened:
        endless = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(line % n for n in range(9))
        assert status(await opened.ask(endless)) == 431
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n" + line % 1
        for cut in range(1, 5):
            reader, writer = await opened.connect()
            whole = head + b"\r\n" + b"y" * 20_000
            end = len(head) + 2 - cut
            writer.write(whole[:end])
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(whole[end:])
            assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"20000")
            writer.close()
