"""Many new runs at once: all their Jobs first, then what stands in their statuses; and nothing lost on the way."""

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.world import manifest
from trainyard.api.progress import ProgressRecord
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.clock import SystemClock
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.loop.queue import WorkQueue
from trainyard.controller.manifests.metadata import Defaults, RunRef
from trainyard.controller.reports.pacing import Pace
from trainyard.controller.runs.observed import Policy
from trainyard.controller.runs.reconcile import LOOK_AFTER_LATE_STATUS_SECONDS, Reconciler

KEY = ("lab", "tiny")
STATUS_WRITE = "PUT trainingruns/status"


class World:
    """What a reconciler is told by and tells, besides the API server. `written` is set after so many status writes."""

    def __init__(self, *, writes: int = 1) -> None:
        self.waiting = False
        self.written = asyncio.Event()
        self._missing = writes

    def crowded(self) -> bool:
        return self.waiting

    def get(self, uid: str) -> ProgressRecord | None:
        return None

    def forget(self, uid: str) -> None: ...

    def for_run(self, key: tuple[str, str], uid: str) -> str:
        return "token"

    def record(self, run: Any, *, type: str, reason: str, message: str) -> None: ...

    def run_known(self, run: RunRef, status: TrainingRunStatus) -> None: ...

    def status_written(
        self, namespace: str, name: str, old: TrainingRunStatus, new: TrainingRunStatus, run: RunRef | None
    ) -> None:
        self._missing -= 1
        if not self._missing:
            self.written.set()

    def run_gone(self, namespace: str, name: str) -> None: ...


def reconciler(cluster: Cluster, world: World, *, crowded: Callable[[], bool] | None = None) -> Reconciler:
    return Reconciler(
        cluster=cluster,
        policy=Policy(Defaults(trainer_image="trainer:test")),
        progress=world,
        pace=Pace(active=lambda: 0, clock=SystemClock(), interval_seconds=8, writes_per_second=25),
        tokens=world,
        events=world,
        watcher=world,
        clock=SystemClock(),
        crowded=crowded or world.crowded,
    )


def state(kube: FakeKube) -> str | None:
    return kube.objects["trainingruns"][KEY].get("status", {}).get("state")


async def test_without_a_crowd_the_status_is_written_at_once(kube: FakeKube, cluster: Cluster):
    kube.put("trainingruns", manifest())
    await reconciler(cluster, World()).reconcile(KEY)
    assert state(kube) == "Pending"


async def test_in_a_crowd_the_job_comes_first_and_the_status_at_the_next_pick(kube: FakeKube, cluster: Cluster):
    world = World()
    looking = reconciler(cluster, world)
    kube.put("trainingruns", manifest())
    world.waiting = True
    assert await looking.reconcile(KEY) == 0
    assert len(kube.objects["jobs"]) == 1
    assert state(kube) is None
    assert await looking.reconcile(KEY) == LOOK_AFTER_LATE_STATUS_SECONDS
    assert kube.requests[-1] == STATUS_WRITE
    assert state(kube) == "Pending"
    assert kube.objects["trainingruns"][KEY]["spec"] == manifest()["spec"]
    written = copy.deepcopy(kube.objects["trainingruns"][KEY]["status"])
    await looking.reconcile(KEY)
    assert kube.requests.count(STATUS_WRITE) == 1
    assert kube.objects["trainingruns"][KEY]["status"] == written
    assert len(kube.objects["jobs"]) == 1


async def test_the_process_dies_before_the_status(kube: FakeKube, cluster: Cluster):
    world = World()
    kube.put("trainingruns", manifest())
    world.waiting = True
    await reconciler(cluster, world).reconcile(KEY)
    world.waiting = False
    await reconciler(cluster, world).reconcile(KEY)  # a new process, that knows nothing
    assert state(kube) == "Pending"
    assert len(kube.objects["jobs"]) == 1


async def test_a_run_that_changed_meanwhile_is_looked_at_anew(kube: FakeKube, cluster: Cluster):
    world = World()
    looking = reconciler(cluster, world)
    kube.put("trainingruns", manifest())
    world.waiting = True
    await looking.reconcile(KEY)
    changed = copy.deepcopy(kube.objects["trainingruns"][KEY])
    changed["metadata"]["labels"] = {"team": "red"}
    kube.put("trainingruns", changed)
    world.waiting = False
    await looking.reconcile(KEY)
    assert state(kube) == "Pending"
    assert len(kube.objects["jobs"]) == 1


async def test_a_run_that_is_gone_meanwhile_is_forgotten(kube: FakeKube, cluster: Cluster):
    world = World()
    looking = reconciler(cluster, world)
    kube.put("trainingruns", manifest())
    world.waiting = True
    await looking.reconcile(KEY)
    kube.remove("trainingruns", *KEY)
    assert await looking.reconcile(KEY) is None


async def test_with_the_queue_every_job_exists_before_most_statuses(kube: FakeKube, cluster: Cluster):
    queue: WorkQueue[tuple[str, str]] = WorkQueue()
    world = World(writes=40)
    looking = reconciler(cluster, world, crowded=queue.crowded)
    names = [f"run-{number:02}" for number in range(40)]
    for name in names:
        body = manifest()
        body["metadata"] |= {"name": name, "uid": f"uid-{name}"}
        kube.put("trainingruns", body)
        queue.add(("lab", name), urgent=True)
    working = asyncio.create_task(queue.run(looking.reconcile, workers=4))
    async with asyncio.timeout(60):
        await world.written.wait()
    await queue.drain(10)
    await working
    before = kube.requests[: [i for i, r in enumerate(kube.requests) if r == "POST jobs"][-1]]
    assert before.count(STATUS_WRITE) < 10  # only the picks that keep the other lane from starving
    assert len(kube.objects["jobs"]) == 40
    assert kube.requests.count(STATUS_WRITE) == 40
