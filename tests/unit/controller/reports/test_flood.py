"""Somebody who fills the receiver with connections gets no more than his share; all others report as if he were not there."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

from tests.unit.controller.reports.flood import Flood
from tests.unit.controller.reports.served import LIMITS, TOKENS, ReceiverProcess
from tests.unit.controller.reports.test_odd_requests import sent

RUNS = 100
INTERVAL = 2.0
"""Seconds between two reports of a run: the trainer's own."""
ON_TIME = INTERVAL
"""Before the next one is due."""


def report(number: int, sequence: int) -> bytes:
    key, uid = ("team", f"honest-{number}"), f"uid-{number}"
    record = {"runUid": uid, "step": "train", "attempt": 1, "sequence": sequence, "time": "2026-01-01T00:00:00Z"}
    body = json.dumps(record | {"stepNumber": sequence, "metrics": {"loss": 1.5}}).encode()
    head = (
        f"POST /v1/runs/{'/'.join(key)}/{uid}/progress HTTP/1.1\r\nHost: receiver\r\nConnection: close\r\n"
        f"Authorization: Bearer {TOKENS.for_run(key, uid)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Reports:
    """What all runs together saw."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.took: list[float] = []

    def quantile(self, share: float) -> float:
        return sorted(self.took)[min(len(self.took) - 1, int(share * len(self.took)))]

    def __str__(self) -> str:
        p50, p99, longest = (self.quantile(share) * 1000 for share in (0.5, 0.99, 1))
        return f"{dict(self.answers)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms"


async def honest_runs(port: int, *, seconds: float, first: int = 0) -> Reports:
    """A hundred runs, each of its own address, that report every two seconds."""
    reports = Reports()
    end = time.monotonic() + seconds

    async def run(number: int) -> None:
        await asyncio.sleep(INTERVAL * number / RUNS)
        sequence = first
        while (began := time.monotonic()) < end:
            sequence += 1
            reports.answers[await sent(port, report(number, sequence), source=f"127.0.1.{number + 1}")] += 1
            reports.took.append(time.monotonic() - began)
            await asyncio.sleep(INTERVAL)

    await asyncio.gather(*(run(number) for number in range(RUNS)))
    return reports


async def flooded(*, connections: int, pause: float, seconds: float) -> tuple[Reports, list[dict[str, Any]]]:
    """The reports under a flood, and the receiver's figures before it and every second of it."""
    async with ReceiverProcess() as served:
        print(f"\nquiet: {await honest_runs(served.port, seconds=INTERVAL)}")
        figures = [await served.figures()]
        async with Flood(served.port, connections=connections, pause=pause):
            reporting = asyncio.create_task(honest_runs(served.port, seconds=seconds, first=10**6))
            while not reporting.done():
                await asyncio.sleep(1)
                figures.append(await served.figures())
            reports = await reporting
    held = max(now["connections"] for now in figures)
    memory = (max(now["rss"] for now in figures) - figures[0]["rss"]) / 1e6
    print(f"flood of {connections}: {reports}; at most {held} connections, {memory:+.1f} MB; {figures[-1]['dropped']}")
    return reports, figures


def check(reports: Reports, figures: list[dict[str, Any]], *, at_least: int) -> None:
    assert reports.answers == {200: reports.answers.total()}
    assert reports.answers.total() >= at_least
    assert reports.quantile(0.99) < ON_TIME
    bound = LIMITS.of_one_address
    held = max(now["connections"] for now in figures)
    assert bound <= held <= bound + RUNS // 4, "the flood has its share and no more; the others are runs that report"
    assert figures[-1]["dropped"]["address"] > 0
    assert max(now["rss"] for now in figures) - figures[0]["rss"] < 8e6


async def test_a_flood_from_one_address_keeps_nobody_else_waiting():
    check(*await flooded(connections=150, pause=0.2, seconds=4), at_least=RUNS)


@pytest.mark.load
@pytest.mark.timeout(300)
async def test_a_long_flood_from_one_address_is_held_at_the_bound():
    reports, figures = await flooded(connections=1000, pause=0.5, seconds=60)
    check(reports, figures, at_least=25 * RUNS)
    assert figures[-1]["dropped"]["deadline"] > 5 * LIMITS.of_one_address // 2
