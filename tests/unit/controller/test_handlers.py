"""The watch engine for real, against an API server of loopback HTTP: what it asks for, and what it hands on."""

import asyncio
from contextlib import asynccontextmanager

from tests.unit.controller.fake_clock import FakeClock, eventually
from tests.unit.controller.fake_kube import FakeKube
from trainyard.controller import handlers
from trainyard.controller.kube.transport import Credentials
from trainyard.controller.loop.inbox import Inbox
from trainyard.controller.page.board import Board
from trainyard.controller.schedules.inbox import ScheduleInbox
from trainyard.controller.sweeps.inbox import SweepInbox

WATCHED = {"trainingruns", "trainingschedules", "trainingsweeps", "jobs", "pods", "persistentvolumeclaims"}


class Keys:
    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []
        self.board = Board(clock=FakeClock(), started="1")

    def add(self, key, *, urgent=False):
        self.all.append(key)

    def add_after(self, key, seconds):
        self.all.append(key)


class Runs:
    def run_seen(self, namespace, name, state): ...
    def run_gone(self, namespace, name): ...


@asynccontextmanager
async def watching(kube: FakeKube, *namespaces: str):
    keys = Keys()

    async def credentials() -> Credentials:
        return Credentials(server=kube.url, authorization="Bearer secret")

    stop = asyncio.Event()
    started: list[bool] = []
    task = asyncio.ensure_future(
        handlers.watch(
            inbox=Inbox(queue=keys, runs=Runs()),
            schedules=ScheduleInbox(queue=keys),
            sweeps=SweepInbox(queue=keys),
            board=keys.board,
            credentials=credentials,
            namespaces=namespaces,
            stop=stop,
            started=lambda: started.append(True),
        )
    )
    await eventually(lambda: kube.watched() == WATCHED or task.done(), 20)
    assert started == [True]
    yield keys
    assert not task.done()
    stop.set()
    await asyncio.wait_for(task, 15)


def run(name: str, *, generation: int = 1) -> dict:
    return {"metadata": {"namespace": "ns", "name": name, "uid": name, "generation": generation}, "spec": {}}


def job(name: str) -> dict:
    labels = {"trainyard.dev/run": name, "app.kubernetes.io/managed-by": "trainyard"}
    return {"metadata": {"namespace": "ns", "name": f"{name}-train-1", "labels": labels}, "status": {"active": 1}}


async def test_runs_and_children_arrive_as_keys_and_nothing_is_written(kube: FakeKube):
    kube.put("trainingruns", run("listed"))
    async with watching(kube) as keys:
        await eventually(lambda: ("ns", "listed") in keys.all)
        kube.put("trainingruns", run("fresh"))
        kube.put("jobs", job("worked"))
        kube.remove("trainingruns", "ns", "listed")
        await eventually(lambda: {("ns", "fresh"), ("ns", "worked")} <= set(keys.all))
        await eventually(lambda: keys.all.count(("ns", "listed")) == 2)
        kube.put("trainingschedules", run("monthly"))
        await eventually(lambda: keys.board.rows("schedule"))
        kube.put("trainingsweeps", run("tune"))
        await eventually(lambda: keys.board.rows("sweep"))
        assert [row["name"] for row in keys.board.rows("run")] == ["fresh"]
    assert kube.writes() == []
    assert kube.authorizations == {"Bearer secret"}


async def test_runs_are_listed_in_small_pages(kube: FakeKube):
    """Each may have almost a megabyte of inline data, and a page is held as a whole."""
    async with watching(kube):
        pass
    limits = [int(q["limit"]) for path, q in kube.queries if path.endswith("/trainingruns") and "limit" in q]
    assert limits
    assert max(limits) <= 20


async def test_a_claim_that_is_being_deleted_arrives_and_no_other_does(kube: FakeKube):
    labels = {"trainyard.dev/run": "saved", "app.kubernetes.io/managed-by": "trainyard"}
    claim = {"metadata": {"namespace": "ns", "name": "saved-checkpoints", "labels": labels}}
    async with watching(kube) as keys:
        kube.put("persistentvolumeclaims", claim)
        kube.put("jobs", job("worked"))
        await eventually(lambda: ("ns", "worked") in keys.all)
        assert ("ns", "saved") not in keys.all
        claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        kube.put("persistentvolumeclaims", claim)
        await eventually(lambda: ("ns", "saved") in keys.all)


async def test_children_are_selected_by_the_api_server(kube: FakeKube):
    async with watching(kube) as keys:
        kube.put(
            "jobs", {"metadata": {"namespace": "ns", "name": "foreign", "labels": {"trainyard.dev/run": "foreign"}}}
        )
        kube.put("jobs", job("ours"))
        await eventually(lambda: ("ns", "ours") in keys.all)
    sent = {path.rpartition("/")[2]: query for path, query in kube.queries}
    for child in WATCHED - {"trainingruns", "trainingschedules", "trainingsweeps"}:
        for request in (child, f"{child}?watch"):
            assert sent[request]["labelSelector"] == "app.kubernetes.io/managed-by=trainyard", request
    for request in ("trainingruns", "trainingruns?watch"):
        assert "labelSelector" not in sent[request]
    assert ("ns", "foreign") not in keys.all
    assert not {"namespaces", "customresourcedefinitions"} & sent.keys()


async def test_with_namespaces_only_those_are_asked_for(kube: FakeKube):
    async with watching(kube, "team-a"):
        pass
    assert kube.queries
    assert all("/namespaces/team-a/" in path for path, _ in kube.queries)


async def test_a_run_that_changes_again_and_again_arrives_each_time(kube: FakeKube):
    async with watching(kube) as keys:
        for generation in range(2, 12):
            kube.put("trainingruns", run("busy", generation=generation))
        await eventually(lambda: keys.all.count(("ns", "busy")) == 10)


async def test_what_changed_while_the_api_server_was_away_is_delivered(kube: FakeKube):
    async with watching(kube) as keys:
        await kube.stop()
        kube.put("trainingruns", run("meanwhile"))
        await kube.start()
        await eventually(lambda: ("ns", "meanwhile") in keys.all, 20)
