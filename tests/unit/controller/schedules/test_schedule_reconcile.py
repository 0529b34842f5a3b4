"""The shell around the planner, against an API server of loopback HTTP: what it writes, and in which order."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.schedules.world import UID, manifest
from trainyard.api.schedule.children import ScheduleRef
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.schedules.reconcile import ScheduleReconciler

KEY = ("lab", "hourly")


class Clock:
    moment = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment


class Witness:
    """Events, metrics and sources, all in one; nothing of them is the subject here."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.late: list[float] = []
        self.forgotten: list[str] = []

    def record(self, run: Any, *, type: str, reason: str, message: str) -> None:
        self.events.append(reason)

    def looks(self, schedule: ScheduleRef) -> dict[str, Any]:
        return {}

    def request(self, schedule: ScheduleRef, name: str) -> None: ...
    def forget(self, uid: str) -> None:
        self.forgotten.append(uid)

    def schedule_written(self, *_: Any) -> None: ...
    def schedule_seen(self, *_: Any) -> None: ...
    def schedule_gone(self, *_: Any) -> None: ...
    def run_made(self, *, started_by: str, late_seconds: float) -> None:
        self.late.append(late_seconds)


class Desk:
    def __init__(self, kube: FakeKube, cluster: Cluster) -> None:
        self.kube, self.clock, self.witness = kube, Clock(), Witness()
        w: Any = self.witness
        clock: Any = self.clock
        self.reconciler = ScheduleReconciler(cluster=cluster, sources=w, events=w, watcher=w, clock=clock)

    async def look(self, at: str = "") -> float | None:
        if at:
            self.clock.moment = datetime.fromisoformat(f"2026-01-01T{at}").replace(tzinfo=UTC)
        return await self.reconciler.reconcile(KEY)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.objects["trainingschedules"][KEY]["status"]
        return found

    def runs(self) -> list[str]:
        return [name for _, name in self.kube.objects["trainingruns"]]


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    kube = FakeKube()
    await kube.start()
    config = tmp_path / "kubeconfig"
    config.write_text(kube.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(config))
    cluster = await Cluster.connect()
    kube.put("trainingschedules", manifest())
    yield Desk(kube, cluster)
    await cluster.close()
    await kube.stop()


async def test_the_start_is_written_down_before_its_run_is_made(desk: Desk) -> None:
    await desk.look()
    before = len(desk.kube.writes())
    await desk.look("01:00:02")
    assert desk.kube.writes()[before:] == [
        "PUT trainingschedules/status",
        "POST trainingruns",
        "PUT trainingschedules/status",
    ]
    assert desk.witness.late == [2.0]
    assert "RunCreated" in desk.witness.events
    assert [a["name"] for a in desk.status()["active"]] == desk.runs()
    writes = len(desk.kube.writes())
    assert await desk.look() == 300
    assert len(desk.kube.writes()) == writes, "a look at a schedule that is as it should be writes nothing"


async def test_a_run_that_was_made_before_a_crash_is_found_again(desk: Desk) -> None:
    await desk.look()
    await desk.look("01:00:02")
    (name,) = desk.runs()
    schedule = desk.kube.objects["trainingschedules"][KEY]
    # As if the operator had ended between making the run and writing so.
    schedule["status"] |= {"firing": {"time": "2026-01-01T01:00:00Z", "startedBy": "Schedule", "nextVariant": 0}}
    schedule["status"]["runs"]["created"] = 0
    del schedule["status"]["active"]
    desk.kube.put("trainingschedules", schedule)
    await desk.look("01:00:05")
    assert desk.runs() == [name]
    assert desk.status()["runs"]["created"] == 1
    assert "firing" not in desk.status()


@pytest.mark.parametrize("label", [{}, {"trainyard.dev/schedule-uid": UID, "trainyard.dev/schedule": "hourly"}])
async def test_a_run_of_somebody_else_is_left_alone(desk: Desk, label: dict[str, str]) -> None:
    await desk.look()
    number = int(datetime(2026, 1, 1, 1, tzinfo=UTC).timestamp()) // 60
    name = f"hourly-{number}"
    desk.kube.put(
        "trainingruns", {"metadata": {"namespace": "lab", "name": name, "labels": label}, "spec": {"theirs": 1}}
    )
    await desk.look("01:00:02")
    assert desk.kube.objects["trainingruns"]["lab", name]["spec"] == {"theirs": 1}
    assert desk.status()["runs"]["skipped"] == 1
    assert "active" not in desk.status()
    assert "RunRefused" in desk.witness.events
    await desk.look("02:00:00")
    assert desk.runs() == [name, f"hourly-{number + 60}"]


async def test_a_spec_that_only_rules_would_have_refused_is_told(desk: Desk) -> None:
    schedule = manifest(schedule="0 * * * *")
    schedule["spec"]["template"]["spec"]["training"]["maxSteps"] = -1
    desk.kube.put("trainingschedules", schedule)
    assert await desk.look("01:00:00") is None
    assert desk.status()["state"] == "Invalid"
    assert "maxSteps" in desk.status()["message"]


async def test_a_deleted_schedule_is_forgotten(desk: Desk) -> None:
    await desk.look()
    desk.kube.remove("trainingschedules", *KEY)
    assert await desk.look() is None
    assert desk.witness.forgotten == [UID]
