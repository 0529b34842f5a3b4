"""The queue under a clock that stands still: what runs, when, and how often."""

import asyncio
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.controller.fake_clock import FakeClock, settle
from trainyard.controller.loop.queue import BACKOFF_LIMIT, FAIRNESS, WorkQueue


class Bench:
    """A queue with workers whose handlers wait for `finish`, unless `instant`."""

    def __init__(self, *, workers: int = 1, instant: bool = True, **kwargs):
        self.clock = FakeClock()
        self.queue: WorkQueue[str] = WorkQueue(clock=self.clock, jitter=lambda: 0.5, observe=self.observe, **kwargs)
        self.calls: list[tuple[float, str]] = []
        self.answers: dict[str, list[float | BaseException | None]] = {}
        self.errors: list[BaseException] = []
        self.instant = instant
        self.gates: dict[str, asyncio.Event] = {}
        self.active: Counter[str] = Counter()
        self.most_active = 0
        self.started_at = self.clock.monotonic()
        self.task = asyncio.ensure_future(self.queue.run(self.handle, workers=workers))

    async def handle(self, key: str) -> float | None:
        self.calls.append((self.clock.monotonic() - self.started_at, key))
        self.active[key] += 1
        self.most_active = max(self.most_active, sum(self.active.values()))
        assert self.active[key] == 1, f"{key} is worked on twice at a time"
        try:
            if not self.instant:
                await self.gates.setdefault(key, asyncio.Event()).wait()
                self.gates[key].clear()
            answers = self.answers.get(key)
            answer = answers.pop(0) if answers else None
            if isinstance(answer, BaseException):
                raise answer
            return answer
        finally:
            self.active[key] -= 1

    def observe(self, key, *, seconds, delay, error):
        if error is not None:
            self.errors.append(error)

    async def finish(self, key: str) -> None:
        self.gates.setdefault(key, asyncio.Event()).set()
        await settle()

    @property
    def keys(self) -> list[str]:
        return [key for _, key in self.calls]

    async def close(self) -> None:
        self.queue.stop()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def bench():
    made: list[Bench] = []

    def make(**kwargs) -> Bench:
        made.append(Bench(**kwargs))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_a_key_named_often_is_worked_on_once(bench):
    b = bench()
    for _ in range(100):
        b.queue.add("a")
    await settle()
    assert b.keys == ["a"]


async def test_a_key_named_while_it_is_worked_on_is_worked_on_once_more(bench):
    b = bench(workers=4, instant=False)
    b.queue.add("a")
    await settle()
    for _ in range(3):
        b.queue.add("a")
    await settle()
    assert b.keys == ["a"]
    await b.finish("a")
    assert b.keys == ["a", "a"]
    await b.finish("a")
    assert b.keys == ["a", "a"]


async def test_workers_work_side_by_side(bench):
    b = bench(workers=3, instant=False)
    for key in "abcd":
        b.queue.add(key)
    await settle()
    assert (b.most_active, b.queue.running(), b.queue.depth()) == (3, 3, 1)


async def test_what_people_did_goes_before_what_pods_did(bench):
    b = bench(instant=False)
    b.queue.add("busy")
    await settle()
    b.queue.add("pod")
    b.queue.add("run", urgent=True)
    for _ in range(3):
        for gate in ("busy", "run", "pod"):
            await b.finish(gate)
    assert b.keys == ["busy", "run", "pod"]


async def test_a_waiting_key_can_become_urgent_and_still_runs_once(bench):
    b = bench(instant=False)
    b.queue.add("busy")
    await settle()
    b.queue.add("first")
    b.queue.add("second")
    b.queue.add("second", urgent=True)
    for key in ("busy", "second", "first"):
        await b.finish(key)
    assert b.keys == ["busy", "second", "first"]


async def test_the_slower_lane_never_starves(bench):
    b = bench()
    b.queue.add("pod")
    for number in range(10 * FAIRNESS):
        b.queue.add(f"run{number}", urgent=True)
    await settle(400)
    assert b.keys.index("pod") <= FAIRNESS


async def test_the_answer_of_a_handler_brings_the_key_back(bench):
    b = bench()
    b.answers["a"] = [30.0, None]
    b.queue.add("a")
    await b.clock.advance(29.9)
    assert b.keys == ["a"]
    await b.clock.advance(0.1)
    assert b.keys == ["a", "a"]
    await b.clock.advance(1000)
    assert b.keys == ["a", "a"]


async def test_of_several_delays_the_earliest_holds(bench):
    b = bench()
    b.queue.add_after("a", 60)
    b.queue.add_after("a", 10)
    b.queue.add_after("a", 30)
    await b.clock.advance(100)
    assert b.calls == [(10.0, "a")]
    assert b.clock.pending == 0


async def test_a_look_at_the_key_makes_an_older_delay_pointless(bench):
    b = bench()
    b.queue.add_after("a", 60)
    b.queue.add("a")
    await b.clock.advance(100)
    assert b.calls == [(0.0, "a")]


async def test_a_delay_set_during_the_work_is_kept(bench):
    b = bench(instant=False)
    b.queue.add("a")
    await settle()
    b.queue.add_after("a", 0.2)
    await b.finish("a")
    await b.clock.advance(0.2)
    assert b.calls == [(0.0, "a"), (0.2, "a")]


async def test_failures_come_back_with_growing_pauses_until_one_succeeds(bench):
    b = bench()
    b.answers["a"] = [OSError("down")] * 3 + [None, OSError("again")]
    b.queue.add("a")
    await b.clock.advance(7)
    assert [at for at, _ in b.calls] == [0, 1, 3, 7]
    b.queue.add("a")
    await settle()
    await b.clock.advance(1)
    assert [at for at, _ in b.calls][-2:] == [7, 8]
    assert [str(e) for e in b.errors] == ["down"] * 3 + ["again"]


async def test_pauses_end_at_the_limit(bench):
    b = bench()
    b.answers["a"] = [OSError()] * 20
    b.queue.add("a")
    await b.clock.advance(BACKOFF_LIMIT * 10)
    gaps = [later - earlier for (earlier, _), (later, _) in zip(b.calls, b.calls[1:], strict=False)]
    assert gaps[-1] == BACKOFF_LIMIT
    assert max(gaps) == BACKOFF_LIMIT


async def test_an_error_can_ask_for_a_longer_pause(bench):
    b = bench(retry_after=lambda error: 42.0)
    b.answers["a"] = [OSError(), None]
    b.queue.add("a")
    await b.clock.advance(100)
    assert [at for at, _ in b.calls] == [0, 42]


async def test_a_cancellation_inside_a_handler_costs_no_worker(bench):
    b = bench(workers=1)
    b.answers["a"] = [asyncio.CancelledError(), None]
    b.queue.add("a")
    await b.clock.advance(5)
    assert [at for at, _ in b.calls] == [0, 1]


async def test_draining_waits_for_what_runs_and_starts_nothing(bench):
    b = bench(instant=False)
    b.queue.add("a")
    await settle()
    b.queue.add("b")
    draining = asyncio.ensure_future(b.queue.drain(20))
    await settle()
    assert not draining.done()
    await b.finish("a")
    assert await draining
    await asyncio.wait_for(b.task, 1)
    assert b.keys == ["a"]


async def test_draining_gives_up_in_time(bench):
    b = bench(instant=False)
    b.queue.add("a")
    await settle()
    assert not await b.queue.drain(0.01)


async def test_the_watchdog_sees_what_waits_and_what_hangs(bench):
    b = bench(instant=False)
    b.queue.add("a")
    await settle()
    b.queue.add("b")
    await b.clock.advance(9)
    assert (b.queue.oldest_ready(), b.queue.longest_running()) == (9, 9)
    await b.finish("a")
    assert (b.queue.oldest_ready(), b.queue.longest_running(), b.queue.depth()) == (0, 0, 0)


_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcd"), st.booleans()),
        st.tuples(st.just("after"), st.sampled_from("abcd"), st.floats(0, 50)),
        st.tuples(st.just("finish"), st.sampled_from("abcd"), st.just(0)),
        st.tuples(st.just("advance"), st.just(""), st.floats(0, 20)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(actions=_ACTIONS, workers=st.integers(1, 3))
def test_every_event_is_followed_by_a_look(actions, workers):
    """Whatever happens in whatever order: after the last event of a key, a handler for it begins (and never two at once)."""

    async def scenario() -> None:
        b = Bench(workers=workers, instant=False)
        last_named: dict[str, float] = {}
        for action, key, value in actions:
            if action == "add":
                b.queue.add(key, urgent=value)
                last_named[key] = b.clock.monotonic()
            elif action == "after":
                b.queue.add_after(key, value)
                last_named[key] = b.clock.monotonic()
            elif action == "finish":
                await b.finish(key)
                b.gates[key].clear()
            else:
                await b.clock.advance(value)
        for gate in b.gates.values():
            gate.set()
        b.instant = True
        await b.clock.advance(60)
        begun = {key: at + b.started_at for at, key in b.calls}
        assert {k for k, at in last_named.items() if begun.get(k, -1) < at} == set()
        assert (b.queue.depth(), b.queue.running(), b.queue.delayed()) == (0, 0, 0)
        await b.close()

    asyncio.run(scenario())


async def test_thousands_of_keys_cost_little():
    seen: set[int] = set()
    finished = asyncio.Event()

    async def handle(key: int) -> None:
        seen.add(key)
        if len(seen) == 20_000:
            finished.set()

    queue: WorkQueue[int] = WorkQueue()
    started = time.process_time()
    for number in range(20_000):
        queue.add(number, urgent=number % 2 == 0)
        queue.add_after(number, 100.0)
    task = asyncio.ensure_future(queue.run(handle, workers=8))
    await finished.wait()
    assert time.process_time() - started < 5  # about 0.2 s; a quadratic slip would take minutes
    queue.stop()
    await task
