"""Whatever is sent to the receiver, it answers, keeps its memory and is there for the next one."""

import asyncio
import time
from collections import Counter
from itertools import islice
from random import Random
from typing import Any

import pytest

from tests.unit.controller.reports.odd_requests import RUNS, honest, odd_requests
from tests.unit.controller.reports.served import ReceiverProcess

AT_ONCE = 24
"""Below the limit for one address, so that none is closed for being one too many."""
PATIENCE = 0.1
"""Seconds until a sender hangs up whose request asks for more to come."""


async def sent(port: int, data: bytes, *, source: str, patience: float = 10.0) -> int:
    """Send and read to the end: the status of the first answer, 0 where there is none. Hangs up when it takes too long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), patience)
        answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        return int(answer[9:12]) if answer.startswith(b"HTTP/1.") else 0
    except (ConnectionError, TimeoutError):
        return 0
    finally:
        writer.close()


async def throw(port: int, *, seed: int, requests: int) -> tuple[Counter[str], Counter[int]]:
    """So many odd requests, some side by side; what was sent, and what came back."""
    made = islice(odd_requests(seed), requests)
    random = Random(seed)
    kinds: Counter[str] = Counter()
    answers: Counter[int] = Counter()

    async def sender() -> None:
        for kind, data in made:
            kinds[kind] += 1
            source = f"127.0.0.{random.randint(1, 250)}"
            answers[await sent(port, data, source=source, patience=PATIENCE)] += 1

    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return kinds, answers


async def check(served: ReceiverProcess, before: dict[str, Any]) -> dict[str, Any]:
    """After the storm: an honest one is served, and nothing is left of the others."""
    assert await sent(served.port, honest(Random(1)), source="127.0.0.1") == 200
    after = await served.at_rest()
    assert (after["connections"], after["descriptors"]) == (0, before["descriptors"])
    assert not [result for result in after["results"] if result.endswith("fault")]
    assert after["tracebacks"] == 0
    assert after["log_longest"] < 500
    assert set(after["looked_at"]) <= {"/".join(key) for key, _ in RUNS}, "no run that does not exist is looked at"
    return after


async def test_thousands_of_odd_requests_are_answers_and_never_500():
    async with ReceiverProcess() as served:
        before = await served.at_rest()
        kinds, answers = await throw(served.port, seed=20261128, requests=3000)
        after = await check(served, before)
        assert min(kinds.values()) > 100
        assert {200, 400, 401, 404, 405, 413, 422} <= answers.keys()
        assert max(answers) < 500
        assert after["log_lines"] < 20


@pytest.mark.load
@pytest.mark.timeout(1500)
async def test_a_hundred_thousand_odd_requests_cost_no_memory():
    seed = time.time_ns() % 10**9
    print(f"seed {seed}")
    async with ReceiverProcess() as served:
        await throw(served.port, seed=seed + 1, requests=10_000)  # until all that is made once has been made
        before = await served.at_rest()
        began = time.monotonic()
        kinds, answers = await throw(served.port, seed=seed, requests=100_000)
        seconds = time.monotonic() - began
        after = await check(served, before)
    print(f"{kinds.total()} requests in {seconds:.0f} s; answers {dict(sorted(answers.items()))}")
    print(f"memory {before['rss'] / 1e6:.1f} -> {after['rss'] / 1e6:.1f} MB; {after['log_lines']} lines of log")
    print(after["results"], after["dropped"])
    assert max(answers) < 500
    assert abs(after["rss"] - before["rss"]) < 2e6
