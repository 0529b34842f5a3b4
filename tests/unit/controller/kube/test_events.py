"""Events: counted instead of repeated, bounded, never in the way."""

import asyncio

import pytest
from aiohttp import web

from tests.unit.controller.fake_api import Seen, fake_api, status
from tests.unit.controller.fake_clock import FakeClock
from trainyard.controller.kube.events import BURST_PER_RUN, MESSAGE_LIMIT, REFILL_SECONDS, EventRecorder

RUN = {
    "apiVersion": "trainyard.dev/v1alpha1",
    "kind": "TrainingRun",
    "metadata": {"namespace": "ns", "name": "alpha", "uid": "u-1"},
}


class InstantClock(FakeClock):
    """Pauses between writes take no time."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Bench:
    def __init__(self, api):
        self.api = api
        self.clock = InstantClock()
        self.cluster = api.cluster()
        self.stored: dict[str, dict] = {}
        api.handler = self.answer
        self.restart()

    def restart(self) -> None:
        """A fresh operator."""
        self.recorder = EventRecorder(self.cluster, clock=self.clock, host="pod-1")
        self.writer = asyncio.ensure_future(self.recorder.run())

    def answer(self, seen: Seen) -> web.Response:
        if seen.method == "POST":
            name = seen.body["metadata"]["name"]
            if name in self.stored:
                return status(409, "AlreadyExists")
            self.stored[name] = seen.body
            return web.json_response(seen.body)
        name = seen.path.rpartition("/")[2]
        if name not in self.stored:
            return status(404, "NotFound")
        if seen.method == "PATCH":
            self.stored[name] |= seen.body
        return web.json_response(self.stored[name])

    async def record(
        self, message: str = "prepare runs on forge", *, run: dict = RUN, reason: str = "StepStarted"
    ) -> None:
        self.recorder.record(run, type="Normal", reason=reason, message=message)
        await self.recorder.flush(5)

    @property
    def counts(self) -> list[int]:
        return [event["count"] for event in self.stored.values()]


@pytest.fixture
async def bench():
    async with fake_api() as api:
        made = Bench(api)
        yield made
        made.writer.cancel()
        await made.cluster.close()


async def test_an_event_stands_on_its_run(bench: Bench):
    await bench.record()
    (event,) = bench.stored.values()
    assert event["involvedObject"] == {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "namespace": "ns",
        "name": "alpha",
        "uid": "u-1",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "StepStarted", "prepare runs on forge")
    assert event["metadata"]["name"].startswith("alpha.")
    assert (event["count"], event["source"]) == (1, {"component": "trainyard-operator", "host": "pod-1"})


async def test_the_same_again_is_counted(bench: Bench):
    for _ in range(3):
        await bench.record()
    assert bench.counts == [3]
    assert [seen.method for seen in bench.api.seen] == ["POST", "PATCH", "PATCH"]


async def test_something_else_is_another_event(bench: Bench):
    await bench.record()
    await bench.record("train runs on forge")
    await bench.record(reason="StepSucceeded")
    assert bench.counts == [1, 1, 1]


async def test_later_it_is_news_again(bench: Bench):
    await bench.record()
    await bench.clock.advance(601)
    await bench.record()
    assert bench.counts == [1, 1]


async def test_a_restarted_operator_counts_on(bench: Bench):
    await bench.record()
    bench.writer.cancel()
    bench.restart()
    await bench.record()
    assert bench.counts == [2]


async def test_an_event_that_was_swept_away_is_made_again(bench: Bench):
    await bench.record()
    bench.stored.clear()
    await bench.record()
    assert bench.counts == [1]


async def test_a_run_that_loops_cannot_flood(bench: Bench):
    for number in range(BURST_PER_RUN + 10):
        await bench.record(f"message {number}")
    assert len(bench.stored) == BURST_PER_RUN
    assert bench.recorder.dropped == 10
    other = RUN | {"metadata": RUN["metadata"] | {"name": "beta", "uid": "u-2"}}
    await bench.record(run=other)
    await bench.clock.advance(REFILL_SECONDS)
    await bench.record("after a while")
    assert len(bench.stored) == BURST_PER_RUN + 2


async def test_an_api_server_that_refuses_stops_nothing(bench: Bench):
    bench.api.answers = [status(403, "Forbidden"), status(500, "InternalError")]
    await bench.record("one")
    await bench.record("two")
    await bench.record("three")
    assert [event["message"] for event in bench.stored.values()] == ["three"]
    assert bench.recorder.dropped == 2


async def test_recording_never_waits(bench: Bench, monkeypatch):
    monkeypatch.setattr("trainyard.controller.kube.events.PENDING_LIMIT", 5)
    bench.writer.cancel()
    bench.recorder = EventRecorder(bench.cluster, clock=bench.clock)
    for number in range(8):
        bench.recorder.record(RUN, type="Normal", reason="StepStarted", message=f"message {number}")
    assert bench.recorder.dropped == 3


async def test_a_long_message_is_cut_between_characters(bench: Bench):
    await bench.record("ü" * MESSAGE_LIMIT)
    (event,) = bench.stored.values()
    assert len(event["message"].encode()) <= MESSAGE_LIMIT
    assert event["message"].endswith("ü…")
