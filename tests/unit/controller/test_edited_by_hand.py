"""People edit and delete what the operator works with. By what it finds the rest, and what it forgets."""

from typing import Any

import pytest

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.world import manifest
from tests.unit.controller.test_late_status import KEY, World
from trainyard.api.progress import ProgressRecord
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.loop.inbox import Inbox
from trainyard.controller.manifests.metadata import Defaults
from trainyard.controller.metrics import Metrics
from trainyard.controller.reports.pacing import Pace
from trainyard.controller.reports.progress_store import Accepted, ProgressStore
from trainyard.controller.runs.observed import Policy
from trainyard.controller.runs.reconcile import Reconciler

UID = manifest()["metadata"]["uid"]
STRANGER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "w", "controller": True}
RWX = {"checkpoints": {"accessModes": ["ReadWriteMany"]}}
SCRIPT = {"image": "own:1", "command": ["train"], "model": None, "datasets": None, "training": None}


class Desk:
    """A reconciler and what it works with."""

    def __init__(self, kube: FakeKube, cluster: Cluster) -> None:
        self.kube, self.clock, self.store = kube, FakeClock(), ProgressStore()
        self.pace = Pace(active=self.store.active, clock=self.clock, interval_seconds=8, writes_per_second=25)
        self.inbox = Inbox(queue=self, runs=Metrics())
        self.woken: list[tuple[str, str]] = []
        world = World()
        self.reconciler = Reconciler(
            cluster=cluster,
            policy=Policy(Defaults(trainer_image="trainer:test")),
            progress=self.store,
            pace=self.pace,
            tokens=world,
            events=world,
            watcher=world,
            clock=self.clock,
            dying_claims=self.inbox.dying_claims,
        )

    def add(self, key: tuple[str, str], *, urgent: bool = False) -> None:
        self.woken.append(key)

    def add_after(self, key: tuple[str, str], seconds: float) -> None:
        self.woken.append(key)

    async def look(self, times: int = 1) -> float | None:
        again = None
        for _ in range(times):
            again = await self.reconciler.reconcile(KEY)
        return again

    async def started(self, **spec: Any) -> "Desk":
        self.kube.put("trainingruns", manifest(**spec))
        await self.look(2)
        return self

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.objects["trainingruns"][KEY].get("status", {})
        return found

    def job(self, name: str = "tiny-prepare-1") -> dict[str, Any]:
        return self.kube.objects["jobs"]["lab", name]

    def jobs(self) -> list[str]:
        return [name for _, name in self.kube.objects["jobs"]]


@pytest.fixture
def desk(kube: FakeKube, cluster: Cluster):
    return Desk(kube, cluster)


@pytest.mark.parametrize("labels", [{}, {"app.kubernetes.io/managed-by": "trainyard"}, {"trainyard.dev/run": "other"}])
async def test_a_job_whose_run_label_was_edited_away_is_not_trained_twice(desk: Desk, labels: dict[str, str]):
    await desk.started()
    desk.job()["metadata"]["labels"] = labels
    await desk.look(3)
    assert desk.jobs() == ["tiny-prepare-1"]
    assert desk.status["steps"][0]["state"] == "Running"


async def test_nor_is_one_that_nobody_had_written_down_yet(desk: Desk):
    """The operator ends before the status says that there is a Job, and somebody edits its labels meanwhile."""
    await desk.started()
    desk.job()["metadata"]["labels"] = {}
    run = desk.kube.objects["trainingruns"][KEY]
    run["status"] = {"conditions": desk.status["conditions"]}
    await desk.look(2)
    assert desk.jobs() == ["tiny-prepare-1"]
    assert desk.status["steps"][0]["attempts"][0]["state"] == "Running"


async def test_its_events_still_lead_to_the_run(desk: Desk):
    await desk.started()
    job = desk.job()
    job["metadata"]["labels"] = {}
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    desk.woken.clear()
    desk.inbox.child_event("MODIFIED", job)
    assert desk.woken == [KEY]


async def test_a_job_without_owner_is_named_and_not_made_again(desk: Desk):
    await desk.started()
    del desk.job()["metadata"]["ownerReferences"]
    await desk.look(2)
    assert desk.jobs() == ["tiny-prepare-1"]
    assert "Job tiny-prepare-1 has lost its owner reference" in desk.status["message"]


@pytest.mark.parametrize("owners", [[], [STRANGER]])
async def test_a_job_of_somebody_else_under_the_name_is_told(desk: Desk, owners: list[dict[str, Any]]):
    desk.kube.put(
        "jobs", {"metadata": {"namespace": "lab", "name": "tiny-prepare-1", "ownerReferences": owners}, "spec": {}}
    )
    await desk.started()
    assert desk.status["message"] == "Job tiny-prepare-1 exists and does not belong to this run; delete or rename it"
    assert desk.job()["metadata"]["ownerReferences"] == owners
    desk.kube.remove("jobs", "lab", "tiny-prepare-1")
    await desk.look()
    assert desk.job()["metadata"]["ownerReferences"][0]["uid"] == UID


async def test_a_service_of_somebody_else_is_told_and_never_changed(desk: Desk):
    theirs = {"metadata": {"namespace": "lab", "name": "tiny-pods"}, "spec": {"selector": {"app": "web"}}}
    desk.kube.put("services", theirs)
    await desk.started(**SCRIPT, numNodes=2, storage=RWX)
    assert desk.status["message"] == "Service tiny-pods exists and does not belong to this run; delete or rename it"
    assert desk.kube.objects["services"]["lab", "tiny-pods"]["spec"] == {"selector": {"app": "web"}}
    assert not any("services" in request for request in desk.kube.writes() if not request.startswith("POST"))


async def test_an_edit_reaches_the_runs_own_secret_by_a_patch_of_that_very_version(desk: Desk):
    await desk.started(suspend=True)
    run = desk.kube.objects["trainingruns"][KEY]
    run["spec"]["suspend"] = False
    await desk.look()
    secret = desk.kube.objects["secrets"]["lab", "tiny-trainyard"]
    desk.kube.remove("jobs", "lab", "tiny-prepare-1")
    run["spec"]["backoffLimit"] = 7
    await desk.look(2)
    assert '"backoffLimit":7' in secret["stringData"]["run.json"]
    assert secret["stringData"]["token"] == "token"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == UID
    assert desk.kube.requests.count("PATCH secrets") == 1


async def test_a_claim_that_somebody_deletes_is_looked_at_because_of_the_watch(desk: Desk):
    await desk.started()
    claim = desk.kube.objects["persistentvolumeclaims"]["lab", "tiny-checkpoints"]
    desk.inbox.claim_event("ADDED", claim)
    desk.inbox.claim_event("MODIFIED", claim)
    assert desk.woken == []
    before = desk.kube.requests.count("GET persistentvolumeclaims")
    await desk.look()
    assert desk.kube.requests.count("GET persistentvolumeclaims") == before, (
        "a look is cheap as long as nothing is wrong"
    )
    claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    desk.inbox.claim_event("MODIFIED", claim)
    desk.inbox.claim_event("MODIFIED", claim)
    assert desk.woken == [KEY]
    await desk.look()
    assert "PersistentVolumeClaim tiny-checkpoints is being deleted" in desk.status["message"]
    desk.inbox.claim_event("DELETED", claim)
    assert desk.inbox.dying_claims("lab") == frozenset()
    assert desk.woken == [KEY, KEY]


# What is forgotten


def record(uid: str = UID, sequence: int = 1) -> ProgressRecord:
    return ProgressRecord(
        run_uid=uid, step="prepare", attempt=1, sequence=sequence, time="2026-01-01T00:00:00Z", phase="x"
    )


async def test_a_run_that_is_deleted_while_it_runs_is_forgotten(desk: Desk):
    await desk.started()
    assert desk.store.put(record()) is Accepted.NEW
    await desk.look()
    desk.kube.remove("trainingruns", *KEY)
    await desk.look()
    assert desk.store.active() == 0
    assert desk.store.put(record(sequence=2)) is Accepted.GONE
    assert desk.pace.pause(UID) == 0


async def test_a_thousand_deleted_runs_make_nobody_slower(desk: Desk):
    for number in range(1000):
        key, uid = ("lab", f"r{number}"), f"uid-{number}"
        desk.store.put(record(uid))
        desk.reconciler.reported(key, uid)
    assert desk.pace.interval() == 40
    for number in range(1000):
        await desk.reconciler.reconcile(("lab", f"r{number}"))
    assert (desk.store.active(), desk.pace.interval()) == (0, 8)


async def test_a_run_made_again_under_the_same_name_takes_nothing_over(desk: Desk):
    await desk.started()
    desk.store.put(record())
    desk.kube.remove("trainingruns", *KEY)
    again = manifest()
    again["metadata"]["uid"] = "99992222-3333-4444-5555-666677778888"
    desk.kube.put("trainingruns", again)
    await desk.look()
    assert desk.store.put(record(sequence=2)) is Accepted.GONE
    assert desk.store.put(record(again["metadata"]["uid"])) is Accepted.NEW


async def test_a_pod_that_reports_after_its_run_has_ended_is_not_counted_for_ever(desk: Desk):
    await desk.started()
    ended = {"type": "Complete", "status": "True", "reason": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    desk.kube.objects["trainingruns"][KEY]["status"]["conditions"] = [ended]
    desk.store.put(record())
    await desk.look()
    assert desk.store.active() == 0
