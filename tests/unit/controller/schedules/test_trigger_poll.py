"""Who is looked at when: no namespace takes the turns of the others, and who fails or is slow is asked less often."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.schedules.loopback import Serve
from tests.unit.controller.schedules.world import World, manifest
from trainyard.api.schedule.triggers import Trigger
from trainyard.controller.clock import SystemClock
from trainyard.controller.kube import errors
from trainyard.controller.schedules.observed import Look, Reading
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.answer import Answer, LookFailed, SourceDown
from trainyard.controller.schedules.triggers.ask import Ask
from trainyard.controller.schedules.triggers.looks import Looks
from trainyard.controller.schedules.triggers.pauses import LONGEST_SECONDS, pause
from trainyard.controller.schedules.triggers.poll import AT_ONCE, Poller
from trainyard.controller.schedules.triggers.turns import Turns


class Cluster:
    """Has no Secrets, or refuses to show them."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def get(self, *_: Any) -> None:
        if self.error is not None:
            raise self.error


class Taker:
    """Takes looks as it is told: at an address that says `slow` for ever."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []
        self.result: Answer | Exception = Answer("a", "saw a")
        self.seconds: Callable[[], None] = lambda: None

    async def take(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        if "slow" in ask.spec["url"]:
            await asyncio.Event().wait()
        self.seconds()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def schedule(namespace: str, number: int, url: str = "http://slow/x", **trigger: Any) -> Any:
    watched = Trigger.model_validate({"name": "t", "dataset": {"url": url}, **trigger})
    name = f"{namespace}-{number}"
    return SimpleNamespace(uid=name, namespace=namespace, name=name, spec=SimpleNamespace(triggers=[watched]))


class Desk:
    def __init__(self) -> None:
        self.cluster, self.taker, self.clock, self.told = Cluster(), Taker(), FakeClock(), asyncio.Event()
        self.poller = self.new(self.taker)

    def new(self, taker: Any) -> Poller:
        cluster: Any = self.cluster
        return Poller(cluster, taker=taker, rules=Rules(), clock=self.clock, notify=lambda key: self.told.set())

    async def look(self, asked: Any) -> Look:
        self.told.clear()
        self.poller.request(asked, "t")
        await asyncio.wait_for(self.told.wait(), 5)
        return self.poller.looks(asked)["t"]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.poller.close()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# Turns


async def test_slow_sources_of_one_namespace_leave_room_for_the_others(desk: Desk) -> None:
    for number in range(8):
        desk.poller.request(schedule("greedy", number), "t")
    await settle()
    assert 1 < len(desk.taker.asked) < AT_ONCE, "it has several slots, and not all of them"
    assert (await desk.look(schedule("other", 0, "http://quick/x"))).reading is not None


async def test_slow_sources_of_one_namespace_leave_room_for_the_others_in_real_processes(serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(3600)
        return web.Response(text="a line\n")

    url, looks, told = await serve(answer), Looks(memory=2**24), asyncio.Queue[tuple[str, str]]()
    cluster: Any = Cluster()
    rules = Rules(allow_loopback=True)
    poller = Poller(cluster, taker=looks, rules=rules, clock=SystemClock(), notify=told.put_nowait)
    for number in range(8):
        poller.request(schedule("greedy", number, f"{url}/slow"), "t")
    await asyncio.sleep(0.5)
    quick = schedule("other", 0, f"{url}/quick")
    poller.request(quick, "t")
    assert await asyncio.wait_for(told.get(), 10) == ("other", "other-0")
    assert poller.looks(quick)["t"].reading is not None
    await poller.close()
    await looks.close()


async def test_turns_go_round_however_many_looks_one_namespace_wants(desk: Desk) -> None:
    for number in range(500):
        desk.poller.request(schedule("many", number, "http://quick/x"), "t")
    for number in range(2):
        desk.poller.request(schedule("few", number, "http://quick/x"), "t")
    order = []
    while len(order) < 502:
        await asyncio.sleep(0)
        order = [ask.spec["url"] for ask in desk.taker.asked]
    late = desk.poller.looks(schedule("few", 1, "http://quick/x"))
    assert late["t"].reading is not None
    turns = Turns(3)
    seen: list[str] = []

    async def one(namespace: str) -> None:
        async with turns.turn(namespace):
            seen.append(namespace)
            await asyncio.sleep(0)

    await asyncio.gather(*(one("many") for _ in range(50)), *(one("few") for _ in range(2)))
    assert seen.index("few") < 10
    assert [n for n, namespace in enumerate(seen) if namespace == "few"][1] < 15


async def test_some_slot_is_free_whatever_two_namespaces_do() -> None:
    turns, holding = Turns(AT_ONCE), []

    async def hold(namespace: str) -> None:
        async with turns.turn(namespace):
            holding.append(namespace)
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hold(name)) for name in ["a"] * 8 + ["b"] * 8]
    await settle()
    assert {"a", "b"} == set(holding)
    assert len(holding) < AT_ONCE
    tasks.append(asyncio.create_task(hold("c")))
    await settle()
    assert "c" in holding
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_slots_of_looks_that_nobody_wants_any_more_come_back(desk: Desk) -> None:
    for number in range(20):
        desk.poller.request(schedule("greedy", number), "t")
    await settle()
    before = len(desk.taker.asked)
    for number in range(20):
        desk.poller.forget(f"greedy-{number}")
    await settle()
    assert len(desk.taker.asked) == before, "those that waited are not taken"
    for number in range(20, 40):
        desk.poller.request(schedule("greedy", number), "t")
    await settle()
    assert len(desk.taker.asked) == 2 * before


# Pauses


def test_a_pause_is_that_of_the_trigger_and_grows_only_for_who_fails_or_is_slow() -> None:
    assert [pause(60, took=0.1, failures=n) for n in range(8)] == [60, 60, 120, 240, 480, 960, 1800, 1800]
    assert pause(60, took=12, failures=0) == 120
    assert pause(60, took=4, failures=0) == 60
    assert pause(60, took=600, failures=0) == LONGEST_SECONDS
    assert pause(86400, took=600, failures=100) == 86400
    assert pause(10, took=0, failures=10**6) == LONGEST_SECONDS


async def test_a_source_that_fails_is_asked_less_and_less_often_and_says_so(desk: Desk) -> None:
    watched = schedule("lab", 0, "http://down/x", pollSeconds=60)
    desk.taker.result = SourceDown("http://down/x cannot be reached: Connection refused")
    told = [await desk.look(watched) for _ in range(7)]
    assert [look.pause for look in told] == [60, 120, 240, 480, 960, 1800, 1800]
    assert told[0].error == "http://down/x cannot be reached: Connection refused; asked again in 1m0s"
    assert str(told[-1].error).endswith("; asked again in 30m0s")
    desk.taker.result = Answer("a", "saw a")
    assert (await desk.look(watched)).pause == 60
    desk.taker.result = SourceDown("down")
    assert (await desk.look(watched)).pause == 60


async def test_a_source_that_is_slow_is_asked_less_often_and_says_so(desk: Desk) -> None:
    def takes_long() -> None:
        desk.clock.time += 30

    desk.taker.seconds = takes_long
    look = await desk.look(schedule("lab", 0, "http://far/x", pollSeconds=60))
    assert (look.pause, look.error) == (300, None)
    assert look.note == "a look takes 30s, so the next comes in 5m0s"
    world = World(manifest(triggers=[{"name": "t", "dataset": {"url": "http://far/x"}, "pollSeconds": 60}]))
    world.looks["t"] = replace(look, at=world.now)
    world.settle()
    (status,) = world.status.triggers or []
    assert status.message == "nothing to do: saw a; a look takes 30s, so the next comes in 5m0s"


def test_the_planner_keeps_to_the_pause() -> None:
    world = World(manifest(triggers=[{"name": "t", "dataset": {"url": "http://far/x"}, "pollSeconds": 60}]))
    world.settle()
    world.looks["t"] = Look(world.now, Reading(world.now, "a", "saw a"), pause=300)
    world.polled.clear()
    assert world.settle().requeue_after == 300
    world.pass_time(299)
    world.settle()
    assert world.polled == []
    world.pass_time(1)
    world.settle()
    assert set(world.polled) == {"t"}


# What becomes of a look


async def test_the_next_look_is_told_what_the_last_one_left(desk: Desk) -> None:
    desk.taker.result = Answer("a", "saw a", marks={"etag": "1"})
    for _ in range(2):
        await desk.look(schedule("lab", 0, "http://x/x"))
    await desk.look(schedule("lab", 0, "http://y/y"))
    assert [dict(ask.marks) for ask in desk.taker.asked] == [{}, {"etag": "1"}, {}]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (LookFailed("unexpected answer: KeyError: 'x'", "Traceback"), "unexpected answer: KeyError: 'x'; asked again"),
        (OSError(24, "Too many open files"), "the look cannot be taken: OSError(24"),
        (SourceDown("http://a/x?token=secret answers HTTP 500"), "http://a/x?… answers HTTP 500; asked again"),
    ],
)
async def test_what_goes_wrong_is_said_and_what_was_known_stays(desk: Desk, fault: Exception, told: str) -> None:
    watched = schedule("lab", 0, "http://x/x")
    await desk.look(watched)
    desk.taker.result = fault
    look = await desk.look(watched)
    assert str(look.error).startswith(told)
    assert "secret" not in str(look.error)
    assert look.reading is not None
    assert look.reading.token == "a"


async def test_a_secret_that_cannot_be_read_is_said_by_name(desk: Desk) -> None:
    watched = schedule("lab", 0, dataset={"url": "http://x/x", "secretRef": {"name": "s"}})
    assert "Secret s does not exist" in str((await desk.look(watched)).error)
    desk.cluster.error = errors.Forbidden("no", request=errors.Request("get", "secrets", "lab", "s"))
    assert "its Secret cannot be read" in str((await desk.look(watched)).error)
    assert desk.taker.asked == []
