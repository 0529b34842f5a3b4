"""A flood of connections that never say enough, from one address, in a process of its own: until standard input ends.

Half of them break off in the header; the others have the token of a run and break off in the body, which is as far as
anybody gets.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from random import Random

from tests.unit.controller.reports.odd_requests import honest

ADDRESS = "127.0.9.9"


class Flood:
    """The other side: starts and ends it."""

    def __init__(self, port: int, *, connections: int, pause: float) -> None:
        self._arguments = [str(port), str(connections), str(pause)]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Flood":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd=Path(__file__).parents[4],
        )
        return self

    async def __aexit__(self, *failed: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 20)


async def _hold(port: int, data: bytes, *, pause: float) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
            try:
                writer.write(data)
                await reader.read()
            finally:
                writer.close()
        await asyncio.sleep(pause)


async def _flood(port: int, connections: int, pause: float) -> None:
    random = Random(1)
    halves = []
    for number in range(connections):
        header, _, body = honest(random).partition(b"\r\n\r\n")
        halves.append(header[:-9] if number % 2 else header + b"\r\n\r\n" + body[:-9])
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    holding = [asyncio.create_task(_hold(port, data, pause=pause)) for data in halves]
    await ended
    for task in holding:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(_flood(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
