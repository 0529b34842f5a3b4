"""The receiver in a process of its own, so that its memory is its own: `ReceiverProcess` starts it, and asks for its figures.

What it prints is JSON, a line for each line that it is sent.
"""

import asyncio
import gc
import json
import logging
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp.web_protocol import RequestHandler

from trainyard.controller.clock import SystemClock
from trainyard.controller.metrics import Metrics
from trainyard.controller.ports import Limits, Served
from trainyard.controller.reports.pacing import Pace
from trainyard.controller.reports.progress_store import Accepted, ProgressStore
from trainyard.controller.reports.receiver import Receiver
from trainyard.controller.reports.tokens import Key, RunTokens

KEY = b"k" * 32
TOKENS = RunTokens(KEY)
LIMITS = Limits(in_all=512, of_one_address=32)
"""The operator's own, by default."""


class ReceiverProcess:
    """The other side: starts and asks."""

    def __init__(self) -> None:
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "ReceiverProcess":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd=Path(__file__).parents[4],
        )
        self.port = (await self.figures())["port"]
        return self

    async def __aexit__(self, *failed: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 20)

    async def figures(self) -> dict[str, Any]:
        """Port, memory, tasks, connections, what the answers were, what was logged."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"?\n")
        told: dict[str, Any] = json.loads(await asyncio.wait_for(self._process.stdout.readline(), 60))
        return told

    async def at_rest(self) -> dict[str, Any]:
        """The figures when nobody is connected any more; no later than the deadline of a connection and a little."""
        async with asyncio.timeout(LIMITS.seconds + 5):
            while (now := await self.figures())["tasks"] > 1:  # noqa: ASYNC110 the other side has no event for it
                await asyncio.sleep(0.1)
            return now


class _Logged(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines = self.longest = self.tracebacks = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1
        self.longest = max(self.longest, len(record.getMessage()))
        self.tracebacks += record.exc_info is not None


async def _serve() -> None:
    logged = _Logged()
    logging.getLogger().addHandler(logged)
    metrics, store = Metrics(), ProgressStore()
    looks: Counter[str] = Counter()
    pace = Pace(active=store.active, clock=SystemClock(), interval_seconds=8, writes_per_second=25)

    def reported(key: Key, uid: str, accepted: Accepted) -> None:
        if pace.look_in(uid, accepted) is not None:
            looks.update(["/".join(key)])

    receiver = Receiver(store=store, tokens=TOKENS, on_report=reported, on_result=metrics.progress_report)
    dropped: Counter[str] = Counter()
    served = Served(
        receiver.application(),
        port=0,
        host="0.0.0.0",
        limits=LIMITS,
        on_dropped=lambda why: dropped.update([why]),
    )
    port = await served.start()
    asked = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        gc.collect()
        with open("/proc/self/statm") as file:  # noqa: ASYNC230 a file of the kernel's memory
            pages = int(file.read().split()[1])
        results = {
            f"{s.labels['format']} {s.labels['result']}": int(s.value)
            for family in metrics.registry.collect()
            for s in family.samples
            if s.name == "trainyard_progress_reports_total"
        }
        told = {
            "port": port,
            "rss": pages * os.sysconf("SC_PAGE_SIZE"),
            "tasks": len(asyncio.all_tasks()),
            "connections": sum(isinstance(thing, RequestHandler) for thing in gc.get_objects()),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "results": results,
            "dropped": dict(dropped),
            "looked_at": sorted(looks),
            "log_lines": logged.lines,
            "log_longest": logged.longest,
            "tracebacks": logged.tracebacks,
        }
        print(json.dumps(told), flush=True)
    await served.stop()


if __name__ == "__main__":
    asyncio.run(_serve())
