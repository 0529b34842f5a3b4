"""Who is the operator: taking, keeping, losing and giving back the Lease, against an API server with resourceVersions."""

import asyncio

import pytest
from aiohttp import web

from tests.unit.controller.fake_api import FakeApi, Seen, fake_api, status
from tests.unit.controller.fake_clock import FakeClock, settle
from trainyard.controller.kube.lease import DURATION, RENEW_DEADLINE, RENEW_EVERY, RETRY, Lease, LeaseLost


class LeaseServer:
    """One Lease, with optimistic locking as the API server does it."""

    def __init__(self) -> None:
        self.lease: dict | None = None
        self.version = 0
        self.down = False

    def answer(self, seen: Seen) -> web.Response:
        if self.down:
            return status(503, "ServiceUnavailable")
        if seen.method == "POST":
            if self.lease is not None:
                return status(409, "AlreadyExists")
            self.lease = seen.body
        elif self.lease is None:
            return status(404, "NotFound")
        elif seen.method == "PATCH":
            if seen.body["metadata"]["resourceVersion"] != str(self.version):
                return status(409, "Conflict")
            self.lease["spec"] |= seen.body["spec"]
        if seen.method != "GET":
            self.touch()
        return web.json_response(self.lease)

    def touch(self) -> None:
        assert self.lease is not None
        self.version += 1
        self.lease["metadata"]["resourceVersion"] = str(self.version)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return self.lease["spec"]["holderIdentity"]


class Bench:
    def __init__(self, api: FakeApi):
        self.server = LeaseServer()
        api.handler = self.server.answer
        self.api = api
        self.clock = FakeClock()
        self.cluster = api.cluster()
        self.changes: list[tuple[str, bool]] = []

    def lease(self, identity: str) -> Lease:
        return Lease(
            self.cluster,
            clock=self.clock,
            namespace="ns",
            name="operator",
            identity=identity,
            on_change=lambda held: self.changes.append((identity, held)),
        )

    async def pass_time(self, seconds: float, *, until=lambda: False) -> None:
        """From timer to timer, with real HTTP answered in between."""
        end = self.clock.time + seconds
        while self.clock.time < end:
            await self.clock.advance(min(self.clock.until_next(), end - self.clock.time))
            await self.idle()
            if until():
                return

    async def idle(self) -> None:
        """Until no request is on its way and every task waits for the clock."""
        quiet = 0
        while quiet < 3:
            before = len(self.api.seen)
            await asyncio.sleep(0.005)
            await settle()
            quiet = quiet + 1 if len(self.api.seen) == before else 0


@pytest.fixture
async def bench():
    async with fake_api() as api:
        made = Bench(api)
        yield made
        await made.cluster.close()


async def test_a_free_lease_is_taken_at_once(bench: Bench):
    lease = bench.lease("a")
    await asyncio.wait_for(lease.acquire(), 5)
    assert (lease.held, bench.server.holder, bench.changes) == (True, "a", [("a", True)])


async def test_of_two_only_one_holds_it(bench: Bench):
    first, second = bench.lease("a"), bench.lease("b")
    await asyncio.wait_for(first.acquire(), 5)
    keeping = asyncio.ensure_future(first.hold())
    waiting = asyncio.ensure_future(second.acquire())
    await bench.pass_time(3 * DURATION)
    assert not waiting.done()
    assert not keeping.done()
    assert (first.held, second.held, bench.server.holder) == (True, False, "a")
    keeping.cancel()
    waiting.cancel()


async def test_a_dead_holder_is_followed_after_its_lease_has_run_out(bench: Bench):
    await asyncio.wait_for(bench.lease("dead").acquire(), 5)
    second = bench.lease("b")
    waiting = asyncio.ensure_future(second.acquire())
    await bench.idle()
    await bench.pass_time(DURATION - 1)
    assert not waiting.done()
    await bench.pass_time(RETRY + 2, until=waiting.done)
    assert (second.held, bench.server.holder) == (True, "b")
    assert bench.server.lease is not None
    assert bench.server.lease["spec"]["leaseTransitions"] == 1


async def test_a_restarted_container_takes_its_own_lease_back_at_once(bench: Bench):
    await asyncio.wait_for(bench.lease("pod-1").acquire(), 5)
    again = bench.lease("pod-1")
    await asyncio.wait_for(again.acquire(), 5)
    assert again.held


async def test_a_released_lease_is_free_at_once(bench: Bench):
    first = bench.lease("a")
    await asyncio.wait_for(first.acquire(), 5)
    await first.release()
    assert (first.held, bench.server.holder) == (False, "")
    await asyncio.wait_for(bench.lease("b").acquire(), 5)
    assert bench.server.holder == "b"


async def test_a_holder_that_cannot_renew_stops_before_anybody_may_start(bench: Bench):
    lease = bench.lease("a")
    await asyncio.wait_for(lease.acquire(), 5)
    keeping = asyncio.ensure_future(lease.hold())
    await bench.idle()
    bench.server.down = True
    await bench.pass_time(RENEW_EVERY)
    assert not keeping.done()
    await bench.pass_time(RENEW_DEADLINE - RENEW_EVERY, until=keeping.done)
    with pytest.raises(LeaseLost, match="could not be renewed"):
        await asyncio.wait_for(keeping, 1)
    assert not lease.held
    assert bench.clock.monotonic() < DURATION


async def test_a_short_outage_costs_nothing(bench: Bench):
    lease = bench.lease("a")
    await asyncio.wait_for(lease.acquire(), 5)
    keeping = asyncio.ensure_future(lease.hold())
    await bench.idle()
    bench.server.down = True
    await bench.pass_time(RENEW_EVERY + RETRY)
    bench.server.down = False
    await bench.pass_time(3 * DURATION)
    assert (keeping.done(), lease.held) == (False, True)
    keeping.cancel()


async def test_a_lease_that_somebody_took_is_lost(bench: Bench):
    lease = bench.lease("a")
    await asyncio.wait_for(lease.acquire(), 5)
    keeping = asyncio.ensure_future(lease.hold())
    await bench.idle()
    assert bench.server.lease is not None
    bench.server.lease["spec"]["holderIdentity"] = "b"
    bench.server.touch()
    await bench.pass_time(RENEW_EVERY + 1, until=keeping.done)
    with pytest.raises(LeaseLost, match="has been taken by 'b'"):
        await asyncio.wait_for(keeping, 1)


async def test_a_lease_that_was_merely_edited_is_kept(bench: Bench):
    lease = bench.lease("a")
    await asyncio.wait_for(lease.acquire(), 5)
    keeping = asyncio.ensure_future(lease.hold())
    await bench.idle()
    bench.server.touch()
    await bench.pass_time(RENEW_EVERY + RETRY + 1)
    assert (keeping.done(), lease.held) == (False, True)
    keeping.cancel()


async def test_two_that_start_at_the_same_moment(bench: Bench):
    leases = [bench.lease(name) for name in "abcde"]
    tasks = [asyncio.ensure_future(lease.acquire()) for lease in leases]
    await bench.idle()
    await bench.pass_time(10)
    assert sum(lease.held for lease in leases) == 1
    for task in tasks:
        task.cancel()
