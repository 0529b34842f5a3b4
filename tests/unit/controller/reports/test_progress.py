"""The store keeps the newest record; the pacer decides when it is worth a look."""

from tests.unit.controller.fake_clock import FakeClock
from trainyard.api.progress import CheckpointRecord, ProgressRecord
from trainyard.controller.reports import progress_store
from trainyard.controller.reports.pacing import MARGIN, SOON, ProgressPacer
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
        self.clock, self.store, self.asked = FakeClock(), ProgressStore(), []
        for number in range(runs):
            self.store.put(record(run_uid=f"u{number}"))
        self.pacer = ProgressPacer(
            add_after=lambda key, seconds: self.asked.append((key, self.clock.monotonic() + seconds)),
            store=self.store,
            clock=self.clock,
            interval_seconds=interval,
            writes_per_second=budget,
        )

    async def reported(self, accepted: Accepted, *, uid: str = "u", after: float = 0) -> float | None:
        """When a look is due because of this report."""
        await self.clock.advance(after)
        self.asked.clear()
        self.pacer.reported(("ns", uid), uid, accepted)
        return round(self.asked[0][1], 3) if self.asked else None


async def test_numbers_wait_for_the_interval_and_changes_do_not():
    looks = Looks()
    assert await looks.reported(Accepted.NEW) == SOON
    assert await looks.reported(Accepted.UPDATED, after=2) == SOON + 8 + MARGIN
    assert await looks.reported(Accepted.UPDATED, after=2) == SOON + 8 + MARGIN
    assert await looks.reported(Accepted.NEW, after=1) == 5 + SOON
    assert await looks.reported(Accepted.UPDATED, after=20) == 25 + SOON


async def test_steady_reports_make_one_look_per_interval():
    looks = Looks()
    due = {await looks.reported(Accepted.UPDATED, after=2) for _ in range(30)}
    assert sorted(due) == [round(2 + SOON + n * (8 + MARGIN), 3) for n in range(9)]


async def test_old_news_wakes_nobody():
    looks = Looks()
    assert await looks.reported(Accepted.OUTDATED) is None
    assert await looks.reported(Accepted.GONE) is None


async def test_many_active_runs_share_the_budget():
    assert Looks(runs=10).pacer.interval() == 8
    assert Looks(runs=500).pacer.interval() == 20


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
