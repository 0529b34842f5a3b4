"""What events say, what the slow resync finds, and what the watchdog makes of it."""

import asyncio

from aiohttp import web

from tests.unit.controller.fake_api import fake_api, status
from tests.unit.controller.fake_clock import FakeClock, eventually
from trainyard.controller.loop.inbox import SOON, Inbox
from trainyard.controller.loop.resync import GRACE, RETRY, Resync
from trainyard.controller.loop.watchdog import (
    CANARY_EVERY,
    LONGEST_RUNNING_LIMIT,
    OLDEST_READY_LIMIT,
    UNREACHABLE_LIMIT,
    Watchdog,
)
from trainyard.controller.metrics import Metrics


class Keys:
    def __init__(self):
        self.added: list[tuple[tuple[str, str], bool]] = []
        self.delayed: list[tuple[tuple[str, str], float]] = []

    def add(self, key, *, urgent=False):
        self.added.append((key, urgent))

    def add_after(self, key, seconds):
        self.delayed.append((key, seconds))

    def take(self):
        taken, self.added = self.added, []
        return taken


class Bench:
    def __init__(self):
        self.keys, self.metrics = Keys(), Metrics()
        self.inbox = Inbox(queue=self.keys, runs=self.metrics)

    def states(self) -> dict[str, float]:
        families = {family.name: family for family in self.metrics.registry.collect()}
        return {s.labels["state"]: s.value for s in families["trainyard_runs"].samples}


def run(
    name: str = "alpha", *, version: int = 1, generation: int = 1, uid: str = "u", state: str = "", **metadata
) -> dict:
    described = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version), "generation": generation}
    return {"metadata": described | metadata, "status": {"state": state} if state else {}}


def child(*, labels: dict | None = None, **status_) -> dict:
    labels = {"trainyard.dev/run": "alpha"} if labels is None else labels
    return {"metadata": {"namespace": "ns", "name": "alpha-train-1", "labels": labels}, "status": status_}


KEY = ("ns", "alpha")


def test_what_people_change_is_urgent():
    b = Bench()
    b.inbox.run_event("ADDED", run())
    b.inbox.run_event("MODIFIED", run(version=2, generation=2))
    b.inbox.run_event("MODIFIED", run(version=3, generation=2, labels={"team": "a"}))
    b.inbox.run_event("MODIFIED", run(version=4, generation=2, labels={"team": "a"}, annotations={"x": "y"}))
    b.inbox.run_event("MODIFIED", run(version=5, generation=2, deletionTimestamp="2026-01-01T00:00:00Z"))
    b.inbox.run_event("DELETED", run(version=6, generation=2))
    assert b.keys.take() == [(KEY, True)] * 6


def test_a_new_run_is_handed_over_once():
    b = Bench()
    b.inbox.run_event("ADDED", run())
    assert b.inbox.take_unseen(KEY) == run()
    assert b.inbox.take_unseen(KEY) is None


def test_a_new_run_of_which_there_is_later_news_is_read_anew():
    for event in (("MODIFIED", run(version=2, generation=2)), ("DELETED", run(version=2))):
        b = Bench()
        b.inbox.run_event("ADDED", run())
        b.inbox.run_event(*event)
        assert b.inbox.take_unseen(KEY) is None


def test_a_run_with_a_status_is_always_read():
    b = Bench()
    b.inbox.run_event(None, run() | {"status": {"conditions": [{"type": "Ready"}]}})
    assert b.inbox.take_unseen(KEY) is None


def test_our_own_status_write_is_no_news():
    b = Bench()
    b.inbox.run_event("ADDED", run())
    b.keys.take()
    b.inbox.run_event("MODIFIED", run(version=2, state="Training"))
    assert b.keys.take() == []
    assert b.states() == {"Training": 1}


def test_a_run_made_again_under_its_name_is_another_run():
    b = Bench()
    b.inbox.run_event("ADDED", run())
    b.keys.take()
    b.inbox.run_event("MODIFIED", run(version=9, uid="another"))
    assert b.keys.take() == [(KEY, True)]


def test_whatever_is_listed_is_looked_at():
    b = Bench()
    for _ in range(2):
        b.inbox.run_event(None, run(state="Succeeded"))
    assert b.keys.take() == [(KEY, True)] * 2


def test_a_childs_change_is_about_its_run():
    b = Bench()
    b.inbox.child_event("MODIFIED", child(active=1))
    b.inbox.child_event("DELETED", child(phase="Running"))
    b.inbox.child_event(None, child())
    assert b.keys.delayed == [(KEY, SOON)] * 3
    assert b.keys.added == []


def test_a_child_that_was_just_made_says_nothing():
    b = Bench()
    b.inbox.child_event("ADDED", child())
    b.inbox.child_event("ADDED", child(phase="Pending"))
    b.inbox.child_event("ADDED", child(labels={"app": "else"}))
    assert b.keys.delayed == []
    b.inbox.child_event("ADDED", child(conditions=[{"type": "Suspended"}]))
    assert b.keys.delayed == [(KEY, SOON)]


def test_deleted_runs_are_counted_no_more():
    b = Bench()
    b.inbox.run_event("ADDED", run())
    b.inbox.run_event("ADDED", run("beta"))
    assert b.states() == {"New": 2}
    b.inbox.run_event("DELETED", run())
    assert b.states() == {"New": 1}


def test_a_deletion_that_the_watch_lost_is_found_by_comparison():
    b = Bench()
    b.inbox.run_event("ADDED", run())
    b.inbox.run_event("ADDED", run("beta"))
    b.keys.take()
    b.inbox.compare({("ns", "beta"): "1"})
    assert b.keys.take() == [(KEY, False)]
    assert (b.inbox.known(), b.states()) == (1, {"New": 1})


class Round:
    """A resync against an API server that lists `listed`."""

    def __init__(self, api, **kwargs):
        self.bench, self.clock, self.cluster = Bench(), FakeClock(), api.cluster()
        self.listed = [run(), run("beta", version=7)]
        api.handler = lambda seen: web.json_response({"items": self.listed, "metadata": {}})
        self.api = api
        self.resync = Resync(
            cluster=self.cluster,
            clock=self.clock,
            queue=self.bench.keys,
            inbox=self.bench.inbox,
            metrics=self.bench.metrics,
            namespaces=kwargs.get("namespaces", ()),
            interval=300,
            jitter=lambda: 0.5,
        )

    async def once(self) -> None:
        listing = asyncio.ensure_future(self.resync.once())
        await eventually(lambda: self.clock.pending)
        await self.clock.advance(GRACE)
        await listing


async def test_a_resync_looks_at_every_run_in_its_own_time_and_writes_nothing():
    async with fake_api() as api:
        r = Round(api)
        await r.once()
        assert [key for key, _ in r.bench.keys.delayed] == [KEY, ("ns", "beta")]
        assert all(0 <= seconds <= 300 / 4 for _, seconds in r.bench.keys.delayed)
        assert {seen.method for seen in api.seen} == {"GET"}
        await r.cluster.close()


async def test_each_served_namespace_is_listed():
    async with fake_api() as api:
        r = Round(api, namespaces=("a", "b"))
        await r.once()
        assert [seen.path.split("/")[5] for seen in api.seen] == ["a", "b"]
        await r.cluster.close()


async def test_a_watch_that_delivers_nothing_is_noticed():
    async with fake_api() as api:
        r = Round(api)
        r.bench.inbox.run_event("ADDED", run())
        await r.once()
        assert r.resync.overdue() == [("ns", "beta")]
        r.bench.inbox.run_event("ADDED", run("beta", version=7))
        assert r.resync.overdue() == []
        await r.cluster.close()


async def test_a_change_between_list_and_look_is_no_fault_of_the_watch():
    async with fake_api() as api:
        r = Round(api)
        r.bench.inbox.run_event("ADDED", run())
        r.bench.inbox.run_event("ADDED", run("beta", version=6))
        listing = asyncio.ensure_future(r.resync.once())
        await eventually(lambda: r.clock.pending)
        r.bench.inbox.run_event("MODIFIED", run("beta", version=7, state="Training"))
        await r.clock.advance(GRACE)
        await listing
        assert r.resync.overdue() == []
        await r.cluster.close()


async def test_the_operator_is_ready_when_the_watch_has_delivered_what_exists():
    async with fake_api() as api:
        r = Round(api)
        api.answers = [status(503, "ServiceUnavailable")]
        catching_up = asyncio.ensure_future(r.resync.catch_up())
        await eventually(lambda: r.clock.pending)
        await r.clock.advance(RETRY)
        await eventually(r.bench.inbox.missing)
        r.bench.inbox.run_event(None, run())
        assert not catching_up.done()
        r.bench.inbox.run_event(None, run("beta", version=7))
        await asyncio.wait_for(catching_up, 1)
        await r.cluster.close()


class Sick:
    def __init__(self, ready: float = 0, running: float = 0):
        self._ready, self._running = ready, running

    def oldest_ready(self) -> float:
        return self._ready

    def longest_running(self) -> float:
        return self._running


def test_the_watchdog_barks_at_what_is_stuck():
    def problems(**kwargs) -> list[str]:
        return Watchdog(queue=Sick(**kwargs), clock=FakeClock(), stale=list).problems()

    assert problems() == []
    assert problems(ready=OLDEST_READY_LIMIT, running=LONGEST_RUNNING_LIMIT) == []
    assert problems(ready=OLDEST_READY_LIMIT + 1) == ["a run has been waiting for 301 s to be looked at"]
    assert problems(running=LONGEST_RUNNING_LIMIT + 1) == ["a reconcile has been running for 601 s"]
    stale = Watchdog(queue=Sick(), clock=FakeClock(), stale=lambda: [KEY]).problems()
    assert stale == ["changes of 1 run(s) were not delivered by the watch, first ns/alpha"]


async def test_the_watchdog_barks_when_the_api_server_is_out_of_reach_for_long():
    async with fake_api() as api:
        clock, cluster = FakeClock(), api.cluster()
        watchdog = Watchdog(queue=Sick(), clock=clock, stale=list)
        api.handler = lambda seen: web.json_response({"items": []})
        canary = asyncio.ensure_future(watchdog.canary(cluster, None))

        async def minutes(count: int) -> None:
            for _ in range(count):
                api.seen.clear()
                await clock.advance(CANARY_EVERY)
                await eventually(lambda: api.seen and clock.pending)

        await minutes(10)
        assert watchdog.problems() == []
        api.handler = lambda seen: status(503, "ServiceUnavailable")
        await minutes(round(UNREACHABLE_LIMIT / CANARY_EVERY))
        assert watchdog.problems() == []
        await minutes(1)
        assert watchdog.problems() == ["the API server has not answered for 360 s"]
        api.handler = lambda seen: web.json_response({"items": []})
        await minutes(1)
        assert watchdog.problems() == []
        canary.cancel()
        await cluster.close()
