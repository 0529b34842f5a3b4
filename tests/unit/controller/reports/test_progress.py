"""The store keeps the newest record; the pace decides when it is worth a look, and when it may be written."""

import itertools

from tests.unit.controller.fake_clock import FakeClock
from trainyard.api.progress import CheckpointRecord, ProgressRecord
from trainyard.controller.reports import pacing, progress_store
from trainyard.controller.reports.pacing import CHANGE_SECONDS, CHANGES_AT_ONCE, EARLY, SOON, Pace
from trainyard.controller.reports.progress_store import Accepted, ProgressStore


def record(sequence: int = 1, **changes) -> ProgressRecord:
    fields = {"run_uid": "u", "step": "train", "attempt": 1, "time": "2026-01-01T00:00:00Z", "phase": "train"} | changes
    return ProgressRecord(sequence=sequence, **fields)


def test_only_newer_records_count():
    store = ProgressStore()
    assert store.put(record(3)) is Accepted.NEW
    assert store.put(record(3)) is Accepted.OUTDATED
    assert store.put(record(2)) is Accepted.OUTDATED
    assert store.put(record(4)) is Accepted.UPDATED
    assert store.put(record(0, attempt=2)) is Accepted.NEW
    assert store.put(record(9, attempt=1)) is Accepted.OUTDATED
    assert store.put(record(0, step="evaluate")) is Accepted.NEW
    assert store.put(record(9, attempt=7)) is Accepted.OUTDATED


def test_a_new_checkpoint_or_phase_is_more_than_numbers():
    store = ProgressStore()
    store.put(record(1, step_number=1))
    assert store.put(record(2, step_number=2)) is Accepted.UPDATED
    assert store.put(record(3, checkpoint=CheckpointRecord(step=2))) is Accepted.NEW
    assert store.put(record(4, checkpoint=CheckpointRecord(step=2))) is Accepted.UPDATED
    assert store.put(record(5, checkpoint=CheckpointRecord(step=2), phase="save")) is Accepted.NEW


def test_a_forgotten_run_takes_no_more():
    store = ProgressStore()
    store.put(record())
    store.forget("u")
    assert (store.get("u"), store.put(record(99)), store.active()) == (None, Accepted.GONE, 0)


def test_neither_records_nor_forgotten_runs_pile_up(monkeypatch):
    monkeypatch.setattr(progress_store, "KEPT", 3)
    store = ProgressStore()
    for number in range(10):
        store.put(record(run_uid=f"u{number}"))
    assert (store.active(), store.get("u0"), store.get("u9") is not None) == (3, None, True)
    for number in range(10):
        store.forget(f"u{number}")
    assert store.put(record(run_uid="u9")) is Accepted.GONE
    assert store.put(record(run_uid="u0")) is Accepted.NEW


class Looks:
    def __init__(self, *, runs: int = 1, interval: float = 8, budget: float = 25):
        self.clock, self.store = FakeClock(), ProgressStore()
        for number in range(runs):
            self.store.put(record(run_uid=f"u{number}"))
        self.pace = Pace(
            active=self.store.active, clock=self.clock, interval_seconds=interval, writes_per_second=budget
        )

    async def reported(self, accepted: Accepted, *, uid: str = "u", after: float = 0) -> float | None:
        """When a look is due because of this report."""
        await self.clock.advance(after)
        seconds = self.pace.look_in(uid, accepted)
        return None if seconds is None else round(self.clock.time + seconds, 3)

    async def wrote(self, *, at: float) -> None:
        await self.clock.advance(at - self.clock.time)
        self.pace.wrote("u")


async def test_numbers_wait_for_the_interval_and_changes_do_not():
    looks = Looks()
    assert await looks.reported(Accepted.NEW) == SOON
    await looks.wrote(at=0.25)
    assert await looks.reported(Accepted.UPDATED, after=1.75) == 0.25 + 8
    assert await looks.reported(Accepted.UPDATED, after=2) == 0.25 + 8
    assert await looks.reported(Accepted.NEW, after=1) == 5 + SOON
    await looks.wrote(at=5.25)
    assert await looks.reported(Accepted.UPDATED, after=20) == 25.25 + SOON


async def test_a_pod_with_a_change_in_each_record_is_looked_at_a_few_times_and_then_as_an_honest_one():
    looks = Looks()
    due = {await looks.reported(Accepted.NEW, after=0.01) for _ in range(3000)}
    assert len(due) == CHANGES_AT_ONCE + (30 // CHANGE_SECONDS)
    assert max(due) <= 30 + SOON + CHANGE_SECONDS
    assert await looks.reported(Accepted.NEW, uid="honest") == 30 + SOON, "nobody else waits for it"
    assert await looks.reported(Accepted.NEW, after=60) == 90 + SOON, "a quiet time makes it honest again"


async def test_a_look_that_had_nothing_to_write_is_not_repeated_at_every_report():
    looks = Looks()
    due = {await looks.reported(Accepted.UPDATED, after=2) for _ in range(30)}
    assert sorted(due) == [round(2 + SOON + n * 8, 3) for n in range(9)]


async def test_numbers_are_written_once_an_interval_and_no_look_is_for_nothing():
    """A pod reports every two seconds; a look takes a moment and writes what is there then."""
    looks, written, idle = Looks(), [], 0
    due = await looks.reported(Accepted.NEW)
    for report in range(1, 60):
        while due is not None and due <= 2 * report:
            await looks.clock.advance(max(0.0, due + 0.02 - looks.clock.time))
            if looks.pace.pause("u"):
                idle += 1
            else:
                looks.pace.wrote("u")
                written.append(looks.clock.time)
            due = None
        due = await looks.reported(Accepted.UPDATED, after=max(0.0, 2 * report - looks.clock.time))
    pauses = [later - earlier for earlier, later in itertools.pairwise(written)]
    assert len(pauses) > 10
    assert min(pauses) >= 8
    assert max(pauses) < 8.1
    assert idle == 0


async def test_a_look_for_another_reason_says_when_numbers_may_be_written():
    looks = Looks()
    assert looks.pace.pause("u") == 0
    looks.pace.wrote("u")
    await looks.clock.advance(3)
    assert looks.pace.pause("u") == 5
    await looks.clock.advance(5 - EARLY / 2)
    assert looks.pace.pause("u") == 0, "a timer that fires a moment early was not for nothing"


async def test_old_news_wakes_nobody():
    looks = Looks()
    assert await looks.reported(Accepted.OUTDATED) is None
    assert await looks.reported(Accepted.GONE) is None


async def test_many_active_runs_share_the_budget_until_they_have_ended():
    assert Looks(runs=10).pace.interval() == 8
    looks = Looks(runs=500)
    assert looks.pace.interval() == 20
    for number in range(400):
        looks.store.forget(f"u{number}")
    assert looks.pace.interval() == 8


async def test_neither_ended_runs_nor_unknown_ones_pile_up(monkeypatch):
    monkeypatch.setattr(pacing, "KEPT", 3)
    looks = Looks()
    for number in range(10):
        await looks.reported(Accepted.NEW, uid=f"x{number}")
    assert len(looks.pace._runs) == 3
    looks.pace.wrote("x9")
    looks.pace.forget("x9")
    assert looks.pace.pause("x9") == 0


def test_names_of_metrics_do_not_pile_up_over_an_attempt():
    store = ProgressStore()
    for number in range(500):
        store.put(record(number, metrics={f"m{number}": 1.0, "loss": 0.1}))
    held = store.get("u")
    assert held is not None
    assert (len(held.metrics), held.metrics["loss"]) == (64, 0.1)


def test_a_record_that_says_less_keeps_what_the_one_before_said():
    """transformers' callback names the steps while it trains, and no longer in its last report."""
    store = ProgressStore()
    store.put(record(1, step_number=190, total_steps=200, percentage=95, metrics={"loss": 0.5, "eval_loss": 0.7}))
    store.put(record(2, percentage=100, metrics={"loss": 0.4}))
    last = store.get("u")
    assert last is not None
    assert (last.step_number, last.total_steps, last.percentage) == (190, 200, 100)
    assert last.metrics == {"loss": 0.4, "eval_loss": 0.7}
    store.put(record(1, attempt=2, percentage=1))
    again = store.get("u")
    assert again is not None
    assert again.step_number is None
