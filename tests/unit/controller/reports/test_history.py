"""Curves: what stays of a long training, over many runs, over a restart, and for those who follow."""

import asyncio
import itertools
import math
from typing import Any

import pytest

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.fake_kube import FakeKube
from trainyard.api.progress import REDUCTIONS, ProgressRecord
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.reports import memory as memories
from trainyard.controller.reports.curves import TEXT_LIMIT, Table
from trainyard.controller.reports.history import POINTS, Curves, Mark, News, Point
from trainyard.controller.reports.keeper import PAUSE, ConfigMaps, Keeper
from trainyard.controller.reports.memory import HistoryMemory

KEY = ("team", "alpha")
UID = "0c5b7a52-6a51-4f9f-9f5e-3d9b4a1c2d3e"


def record(step: int, *, uid: str = UID, second: int | None = None, **changes: Any) -> ProgressRecord:
    at = step if second is None else second
    time = f"2026-01-01T{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}Z"
    facts = {"run_uid": uid, "step": "train", "attempt": 1, "sequence": step, "time": time, "step_number": step}
    return ProgressRecord.model_validate(facts | {"metrics": {"loss": 10.0 / (step + 1)}} | changes)


def test_a_curve_of_any_length_has_at_most_two_thousand_points_and_keeps_its_ends_and_evaluations():
    table = Table()
    for step in range(50_001):
        values = {"loss": 1.0 / (step + 1)}
        if step % 1000 == 0:
            values["eval_loss"] = 2.0 / (step + 1)
        table.add(Point(float(step), step, values))
    points = table.curves().points
    assert POINTS / 2 <= len(points) <= POINTS
    assert (points[0].step, points[-1].step) == (0, 50_000)
    assert sum("eval_loss" in point.values for point in points) == 51
    gaps = [b.step - a.step for a, b in itertools.pairwise(points)]
    assert max(gaps) <= 80


def test_an_evaluation_that_reports_repeat_counts_once():
    table = Table()
    for step in range(10):
        point = Point(float(step), step, {"loss": float(step), "eval_loss": 1.0 if step < 5 else 0.5})
        table.add(point, repeats=True)
    assert [p.step for p in table.curves().points if "eval_loss" in p.values] == [0, 5]
    later = Table()
    later.add(Point(10.0, 10, {"loss": 10.0, "eval_loss": 0.5}), repeats=True)
    whole = later.preceded_by(Table.unpack(table.pack()))
    assert [p.step for p in whole.curves().points if "eval_loss" in p.values] == [0, 5], "over a restart, too"


def test_an_evaluation_that_was_measured_counts_whatever_it_was_before():
    table = Table()
    for step in (100, 200, 300):
        table.add(Point(float(step), step, {"eval_loss": 0.42}))
    kept = Table.unpack(table.pack())
    kept.add(Point(400.0, 400, {"eval_loss": 0.42}))
    assert [p.step for p in kept.curves().points] == [100, 200, 300, 400]
    assert [p.step for p in kept.preceded_by(Table()).curves().points] == [100, 200, 300, 400]


def test_what_comes_twice_or_late_is_taken_once():
    table = Table()
    points = [Point(float(step), step, {"loss": float(step)}) for step in range(5)]
    for point in (*points, *points, points[2]):
        table.add(point)
    assert [p.step for p in table.curves().points] == [0, 1, 2, 3, 4]


def test_packed_and_unpacked_a_table_says_the_same():
    table = Table()
    for step in range(100):
        table.add(Point(1.7e9 + step, step, {"loss": 0.45, "learning_rate": 5e-5, "eval_loss": float(step)}))
    table.mark(Mark(1.7e9, 50, "checkpoint", "x/step-50"))
    assert Table.unpack(table.pack()).curves() == table.curves()
    assert table.curves().points[0].values["loss"] == 0.45


def test_a_full_table_of_noise_fits_into_its_bound():
    table = Table()
    for step in range(POINTS):
        noise = {f"m{n}": math.sin(step * (n + 1) * 12.9898) * 43758.5453 % 1 for n in range(12)}
        table.add(Point(step * 1.37, step, noise))
    packed = table.pack()
    assert len(packed) <= TEXT_LIMIT
    assert len(Table.unpack(packed)) >= POINTS / 2


@pytest.mark.parametrize("garbage", [b"", b"x", b"x" * 100, Table().pack()[:5]])
def test_what_somebody_else_has_written_in_its_place_is_empty(garbage: bytes):
    assert Table.unpack(garbage).curves() == Curves()


class Nothing:
    async def read(self, key: Any, uid: str) -> Table | None:
        return Table()


def memory(**changes: Any) -> HistoryMemory:
    return HistoryMemory(clock=FakeClock(), kept=Nothing(), **changes)


async def test_marks_tell_of_checkpoints_restarts_and_rungs_once_each():
    history = memory()
    saved = {"step": 5, "path": "x/step-5"}
    history.take(KEY, record(4))
    history.take(KEY, record(5, checkpoint=saved))
    history.take(KEY, record(6, checkpoint=saved))
    history.take(KEY, record(6, second=20, attempt=2, checkpoint=saved))
    history.take(KEY, record(7, second=21, attempt=2, effective={REDUCTIONS: "batch 8 to 4"}))
    history.take(KEY, record(8, second=22, attempt=2, effective={REDUCTIONS: "batch 8 to 4; batch 4 to 2"}))
    marks = (await history.points(KEY, UID)).marks
    assert [(mark.kind, mark.step) for mark in marks] == [
        ("checkpoint", 5),
        ("restart", 6),
        ("out-of-memory", 7),
        ("out-of-memory", 8),
    ]


async def test_all_runs_together_stay_within_the_memory_and_one_run_has_all_its_points():
    limit = 400_000
    history = memory(memory=limit)
    for step in range(POINTS):
        history.take(KEY, record(step))
    assert len((await history.points(KEY, UID)).points) == POINTS
    for number in range(300):
        for step in range(40):
            history.take(("team", f"run-{number}"), record(step, uid=f"u-{number}"))
    used = sum(entry.table.size for entry in history.entries.values())
    assert used <= limit
    assert used == history._used
    assert len((await history.points(("team", "run-299"), "u-299")).points) == 40


async def test_after_a_restart_a_run_that_has_ended_is_still_told(kube: FakeKube, cluster: Cluster):
    clock, maps = FakeClock(), ConfigMaps(cluster)
    history = HistoryMemory(clock=clock, kept=maps)
    for step in range(50):
        history.take(KEY, record(step))
    told = await history.points(KEY, UID)
    history.ended(UID)
    keeping = asyncio.create_task(Keeper(memory=history, maps=maps, clock=clock).run())
    for _ in range(40):
        await clock.advance(0.5)
        await asyncio.sleep(0.01)
    assert not history.entries
    keeping.cancel()
    (kept,) = kube.objects["configmaps"].values()
    assert kept["metadata"]["ownerReferences"][0]["uid"] == UID
    after = HistoryMemory(clock=FakeClock(), kept=maps)
    assert await after.points(KEY, UID) == told
    assert await after.points(KEY, "another-run-of-this-name") == Curves()


async def test_after_a_restart_a_run_goes_on_from_what_was_written(kube: FakeKube, cluster: Cluster):
    maps = ConfigMaps(cluster)
    first = HistoryMemory(clock=FakeClock(), kept=maps)
    for step in range(10):
        first.take(KEY, record(step, checkpoint={"step": 5, "path": "x"} if step > 5 else None))
    await Keeper(memory=first, maps=maps, clock=FakeClock()).flush(5)
    second = HistoryMemory(clock=FakeClock(), kept=maps)
    for step in range(12, 20):
        second.take(KEY, record(step, checkpoint={"step": 5, "path": "x"}))
    curves = await second.points(KEY, UID)
    assert [point.step for point in curves.points] == [*range(10), *range(12, 20)]
    assert [mark.kind for mark in curves.marks] == ["checkpoint"]
    await Keeper(memory=second, maps=maps, clock=FakeClock()).flush(5)
    assert len((await HistoryMemory(clock=FakeClock(), kept=maps).points(KEY, UID)).points) == 18


async def test_a_run_that_trains_is_written_rarely_and_nothing_is_written_while_nothing_happens(
    kube: FakeKube, cluster: Cluster
):
    clock, maps = FakeClock(), ConfigMaps(cluster)
    history = HistoryMemory(clock=clock, kept=maps)
    keeping = asyncio.create_task(Keeper(memory=history, maps=maps, clock=clock).run())
    for second in range(int(3 * PAUSE) + 20):
        history.take(KEY, record(second))
        await clock.advance(1)
        if second % 60 == 0:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    writes = [request for request in kube.writes() if "configmaps" in request]
    assert [request for request in writes if request.startswith("PATCH")] == ["PATCH configmaps"] * 2
    before = len(kube.requests)
    for _ in range(10):
        await clock.advance(PAUSE)
        await asyncio.sleep(0.02)
    written = [request for request in kube.requests[before:] if not request.startswith("GET")]
    assert len(written) <= 2, "what had not been written yet, once"
    quiet = len(kube.requests)
    for _ in range(10):
        await clock.advance(PAUSE)
        await asyncio.sleep(0.02)
    assert len(kube.requests) == quiet
    keeping.cancel()


async def test_a_configmap_of_somebody_else_is_left_alone(kube: FakeKube, cluster: Cluster):
    kube.put("configmaps", {"metadata": {"namespace": "team", "name": "alpha-history"}, "data": {"mine": "x"}})
    maps = ConfigMaps(cluster)
    history = HistoryMemory(clock=FakeClock(), kept=maps)
    history.take(KEY, record(1))
    await Keeper(memory=history, maps=maps, clock=FakeClock()).flush(5)
    assert kube.objects["configmaps"]["team", "alpha-history"].get("binaryData") is None
    assert len((await history.points(KEY, UID)).points) == 1


async def follow(history: HistoryMemory, count: int, **which: Any) -> list[News]:
    found = []
    async for news in history.subscribe(**which):
        found.append(news)
        if len(found) == count:
            break
    return found


async def test_who_comes_back_with_his_last_id_misses_nothing_and_gets_nothing_twice():
    history = memory()
    following = asyncio.create_task(follow(history, 3))
    await asyncio.sleep(0)
    for step in range(6):
        history.take(KEY, record(step))
    first = await following
    rest = await follow(history, 3, last_event_id=first[-1].id)
    assert [news.point.step for news in (*first, *rest) if news.point] == [0, 1, 2, 3, 4, 5]
    ids = [int(news.id) for news in (*first, *rest)]
    assert ids == sorted(set(ids))


async def test_an_id_of_before_a_restart_or_of_nobody_is_answered_with_a_reset():
    for unknown in ("5", "", "x", "99999999999999999999"):
        history = memory()
        history.take(KEY, record(1))
        (news,) = await follow(history, 1, last_event_id=unknown)
        assert news.kind == "reset"


async def test_one_run_is_followed_without_the_others():
    history = memory()
    following = asyncio.create_task(follow(history, 1, uid="other"))
    await asyncio.sleep(0)
    history.take(KEY, record(1))
    history.take(("team", "beta"), record(1, uid="other"))
    (news,) = await following
    assert (news.uid, news.key) == ("other", ("team", "beta"))


async def test_a_reader_who_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memories, "UNREAD", 10)
    history = memory()
    stream = history.subscribe()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    for step in range(100):
        history.take(KEY, record(step))
    assert (await waiting).kind == "point"
    assert len([news async for news in stream]) < 20
