"""The API server refuses a status: what pods told is left out, the decision is written."""

from typing import Any

import pytest

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.world import manifest
from tests.unit.controller.test_late_status import KEY, STATUS_WRITE, World
from trainyard.api.progress import ProgressRecord
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.manifests.metadata import Defaults
from trainyard.controller.reports.pacing import Pace
from trainyard.controller.runs import progress
from trainyard.controller.runs.observed import Policy
from trainyard.controller.runs.reconcile import Reconciler

UID = manifest()["metadata"]["uid"]
TOLD = {"trainerStatus", "effective", "checkpoint"}


class Training(World):
    """Its pod has reported something."""

    def __init__(self, record: ProgressRecord | None = None) -> None:
        super().__init__()
        self.newest = record

    def get(self, uid: str) -> ProgressRecord | None:
        return self.newest


def reconciler(cluster: Cluster, world: World, clock: FakeClock) -> Reconciler:
    return Reconciler(
        cluster=cluster,
        policy=Policy(Defaults(trainer_image="trainer:test")),
        progress=world,
        pace=Pace(active=lambda: 0, clock=clock, interval_seconds=8, writes_per_second=25),
        tokens=world,
        events=world,
        watcher=world,
        clock=clock,
    )


def report(**fields: Any) -> ProgressRecord:
    told = {"effective": {"device": "cpu"}, "checkpoint": {"step": 3, "path": "c/3"}} | fields
    return ProgressRecord.model_validate(
        {"runUid": UID, "step": "prepare", "attempt": 1, "sequence": 1, "time": "2026-01-01T00:00:00Z", "phase": "x"}
        | told
    )


def status(kube: FakeKube) -> dict[str, Any]:
    found: dict[str, Any] = kube.objects["trainingruns"][KEY]["status"]
    return found


async def started(kube: FakeKube, cluster: Cluster, world: World) -> Reconciler:
    clock = FakeClock()
    looking = reconciler(cluster, world, clock)
    kube.put("trainingruns", manifest())
    await looking.reconcile(KEY)
    await clock.advance(10)
    return looking


async def test_a_run_whose_numbers_are_refused_can_be_suspended(kube: FakeKube, cluster: Cluster):
    world = Training()
    looking = await started(kube, cluster, world)
    kube.refuses = lambda plural, body: bool(TOLD & (body.get("status") or {}).keys())
    world.newest = report()
    run = kube.objects["trainingruns"][KEY]
    kube.put("trainingruns", run | {"spec": run["spec"] | {"suspend": True}})
    await looking.reconcile(KEY)
    assert status(kube)["message"] == "suspending: waiting for the pod to save its state and stop"
    assert kube.objects["jobs"] == {}, "it has been told to stop"
    await looking.reconcile(KEY)
    assert status(kube)["state"] == "Suspended"
    assert not TOLD & status(kube).keys()


async def test_what_was_written_before_is_kept_if_it_is_still_taken(kube: FakeKube, cluster: Cluster):
    world = Training(report())
    looking = await started(kube, cluster, world)
    await looking.reconcile(KEY)
    assert status(kube)["checkpoint"]["step"] == 3
    kube.refuses = lambda plural, body: (body.get("status") or {}).get("checkpoint", {}).get("step") == 4
    world.newest = report(sequence=2, checkpoint={"step": 4, "path": "c/4"})
    kube.objects["trainingruns"][KEY]["metadata"]["annotations"] = {"trainyard.dev/cancel": "enough"}
    await looking.reconcile(KEY)
    await looking.reconcile(KEY)
    assert (status(kube)["state"], status(kube)["checkpoint"]["step"]) == ("Cancelled", 3)


async def test_one_refusal_costs_one_more_write(kube: FakeKube, cluster: Cluster):
    world = Training()
    looking = await started(kube, cluster, world)
    kube.refuses = lambda plural, body: bool(TOLD & (body.get("status") or {}).keys())
    world.newest = report()
    before = kube.requests.count(STATUS_WRITE)
    kube.objects["trainingruns"][KEY]["metadata"]["annotations"] = {"trainyard.dev/cancel": "enough"}
    await looking.reconcile(KEY)
    assert kube.requests.count(STATUS_WRITE) == before + 2


async def test_a_decision_survives_what_cannot_be_put_into_a_status_at_all(
    kube: FakeKube, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The last net: something that was told got past all that bounds it."""
    world = Training()
    looking = await started(kube, cluster, world)
    monkeypatch.setattr(progress.told, "words", lambda said: progress.TrainerStatus(step=-1))
    world.newest = report(step="train")
    kube.objects["trainingruns"][KEY]["metadata"]["annotations"] = {"trainyard.dev/cancel": "enough"}
    kube.objects["trainingruns"][KEY]["status"]["steps"][1] |= {
        "state": "Running",
        "attempts": [{"number": 1, "state": "Running"}],
    }
    await looking.reconcile(KEY)
    await looking.reconcile(KEY)
    assert status(kube)["state"] == "Cancelled"
    assert "what was told fits into no status, leaving it out" in caplog.text
