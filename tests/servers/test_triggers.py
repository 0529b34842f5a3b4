"""Every trigger against the real server it speaks to: once per change, not at a restart, not while the server is away.

An outage lasts some seconds here, and ten minutes where it is marked `load`.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.servers import restartable
from tests.unit.controller.schedules.git_server import GitServer, commit, git
from trainyard.api.schedule.status import TriggerStatus
from trainyard.api.schedule.triggers import Trigger
from trainyard.controller.schedules.observed import Look, Reading
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.answer import SourceDown
from trainyard.controller.schedules.triggers.ask import Ask
from trainyard.controller.schedules.triggers.judge import fired, judge
from trainyard.controller.schedules.triggers.looks import Looks
from trainyard.controller.schedules.triggers.poll import source_of

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1500)]

OUTAGES = [5, pytest.param(600, marks=pytest.mark.load)]


@pytest.fixture
async def looks() -> AsyncIterator[Looks]:
    taken = Looks(memory=20 * 2**20)
    yield taken
    await taken.close()


class Watch:
    """A trigger as an operator holds it: it looks, judges, and starts a run whenever it may."""

    def __init__(self, trigger: Trigger, looks: Looks) -> None:
        self._trigger = trigger
        self._looks = looks
        self._marks: Mapping[str, str] = {}
        self.status: TriggerStatus | None = None
        self.starts = 0

    async def look(self) -> TriggerStatus:
        now = datetime.now(UTC)
        try:
            kind, spec = source_of(self._trigger)
            fields = spec.model_dump(mode="json", exclude={"secret_ref"})
            answer = await self._looks.take(Ask(kind, fields, marks=self._marks, rules=Rules(allow_loopback=True)))
            look = Look(now, Reading(now, answer.token, answer.observed, answer.holds))
            self._marks = answer.marks
        except SourceDown as error:
            look = Look(now, None, str(error))
        verdict = judge(self._trigger, self.status, look, now)
        self.status = verdict.status
        if verdict.ready:
            self.starts += 1
            self.status = fired(verdict.status, look, now)
        return self.status

    async def look_until_it(self, holds: Callable[[TriggerStatus], bool], *, seconds: float = 30) -> None:
        """Look again and again until something can be seen."""
        deadline = asyncio.get_running_loop().time() + seconds
        for pause in itertools.repeat(0.2):
            if holds(await self.look()):
                return
            assert asyncio.get_running_loop().time() < deadline, self.status
            await asyncio.sleep(pause)

    async def look_until(self, starts: int) -> None:
        """Look again and again until so many runs have been started."""
        await self.look_until_it(lambda status: self.starts >= starts)

    async def stays_quiet(self, *, looks: int, pause: float = 0.1) -> None:
        before = self.starts
        for _ in range(looks):
            await self.look()
            await asyncio.sleep(pause)
        assert self.starts == before, self.status

    async def restart(self) -> None:
        """A new operator knows what is in the status, and nothing else."""
        assert self.status is not None
        self.status = TriggerStatus.model_validate_json(self.status.model_dump_json(by_alias=True))
        self._marks = {}
        await self.stays_quiet(looks=3)

    async def outage(self, stop: Callable[[], Any], start: Callable[[], Any], *, seconds: float) -> None:
        """The server is away for so long, and is back as it was."""
        await asyncio.to_thread(stop)
        began, before = asyncio.get_running_loop().time(), self.starts
        while asyncio.get_running_loop().time() - began < seconds:
            status = await self.look()
            assert status.failing, status
            await asyncio.sleep(max(0.5, seconds / 100))
        await asyncio.to_thread(start)
        await self.stays_quiet(looks=3)
        assert self.starts == before


# git over HTTP


@pytest.fixture
async def git_server(tmp_path: Path) -> AsyncIterator[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """git's own HTTP backend; its address, and how to take it away and bring it back."""
    application, loop, port = web.Application(), asyncio.get_running_loop(), restartable.free_port()
    application.router.add_route("*", "/{tail:.*}", GitServer(tmp_path))
    runner = web.AppRunner(application)
    await runner.setup()
    sites: list[web.TCPSite] = []

    async def begin() -> None:
        sites.append(web.TCPSite(runner, "127.0.0.1", port))
        await sites[-1].start()

    def start() -> None:
        asyncio.run_coroutine_threadsafe(begin(), loop).result()

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(sites.pop().stop(), loop).result()

    await begin()
    yield f"http://127.0.0.1:{port}/repo/.git", stop, start
    await runner.cleanup()


@pytest.mark.parametrize("seconds", OUTAGES)
async def test_git(git_server: tuple[str, Any, Any], tmp_path: Path, seconds: float, looks: Looks) -> None:
    url, stop, start = git_server
    git(tmp_path, "init", "--quiet", "-b", "main", "repo")
    folder = tmp_path / "repo"
    commit(folder, {"docs/a.md": "one", "README": "x"})
    trigger = Trigger.model_validate({"name": "t", "gitPath": {"url": url, "path": "docs"}})
    watch = Watch(trigger, looks)
    await watch.stays_quiet(looks=3)
    commit(folder, {"README": "y"})
    await watch.stays_quiet(looks=2)
    commit(folder, {"docs/a.md": "two"})
    await watch.look_until(1)
    await watch.stays_quiet(looks=3)
    await watch.restart()
    await watch.outage(stop, start, seconds=seconds)
    commit(folder, {"docs/a.md": "three"})
    await watch.look_until(2)
    await watch.stays_quiet(looks=3)


# Prometheus


class Exporter:
    """One gauge."""

    value = 0.9

    async def __call__(self, request: web.Request) -> web.Response:
        return web.Response(text=f"# TYPE agent_accuracy gauge\nagent_accuracy {self.value}\n")


@pytest.fixture
async def exporter() -> AsyncIterator[tuple[Exporter, int]]:
    application, gauge, port = web.Application(), Exporter(), restartable.free_port()
    application.router.add_get("/metrics", gauge)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield gauge, port
    await runner.cleanup()


@pytest.mark.parametrize("seconds", OUTAGES)
async def test_prometheus(exporter: tuple[Exporter, int], tmp_path: Path, seconds: float, looks: Looks) -> None:
    gauge, port = exporter
    comparison = {"comparison": "LessThan", "threshold": 0.8, "forSeconds": 3}
    # Prometheus answers before its first scrape, so the server is started in a thread and asked as it comes.
    context = restartable.prometheus(tmp_path, target=port)
    server = await asyncio.to_thread(context.__enter__)
    try:
        query = {"url": server.url, "query": "agent_accuracy", **comparison}
        watch = Watch(Trigger.model_validate({"name": "t", "prometheus": query}), looks)
        await watch.look_until_it(lambda status: not status.failing)  # before the first scrape there is no data
        await watch.stays_quiet(looks=5)
        gauge.value = 0.7
        await watch.look_until(1)
        await watch.stays_quiet(looks=10)
        await watch.restart()
        await watch.outage(server.stop, server.start, seconds=seconds)
        await watch.stays_quiet(looks=30)
        gauge.value = 0.9
        await watch.look_until_it(lambda status: status.holds_since is None)
        gauge.value = 0.5
        await watch.look_until(2)
        await watch.stays_quiet(looks=10)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


# MLflow


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[restartable.Server]:
    with restartable.mlflow(tmp_path) as server:
        yield server


def register(server: restartable.Server, *, accuracy: float) -> None:
    """A run with a metric, a version of the model from it, and the alias set on that version."""

    def post(what: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = restartable.HTTP.request("POST", f"{server.url}/api/2.0/mlflow/{what}", json=body, timeout=60)
        assert answer.status == 200, answer.data
        return dict(answer.json())

    run = post("runs/create", {"experiment_id": "0", "start_time": 0})["run"]["info"]
    post("runs/log-metric", {"run_id": run["run_id"], "key": "accuracy", "value": accuracy, "timestamp": 0})
    made = post(
        "model-versions/create", {"name": "agent", "source": f"{run['artifact_uri']}/model", "run_id": run["run_id"]}
    )
    version = made["model_version"]["version"]
    post("registered-models/alias", {"name": "agent", "alias": "champion", "version": version})


@pytest.mark.parametrize("seconds", OUTAGES)
async def test_mlflow(mlflow_server: restartable.Server, seconds: float, looks: Looks) -> None:
    spec = {"trackingUri": mlflow_server.url, "model": "agent", "alias": "champion", "metric": "accuracy"}
    trigger = {"name": "t", "mlflowMetric": {**spec, "comparison": "LessThan", "threshold": 0.8}}
    watch = Watch(Trigger.model_validate(trigger), looks)
    status = await watch.look()  # a model that does not exist is an answer
    assert (status.failing, watch.starts) == (None, 0), status
    answer = await asyncio.to_thread(
        restartable.HTTP.request,
        "POST",
        f"{mlflow_server.url}/api/2.0/mlflow/registered-models/create",
        json={"name": "agent"},
    )
    assert answer.status == 200
    await watch.stays_quiet(looks=2)
    await asyncio.to_thread(register, mlflow_server, accuracy=0.7)
    await watch.look_until(1)
    await watch.stays_quiet(looks=5)
    await watch.restart()
    await watch.outage(mlflow_server.stop, mlflow_server.start, seconds=seconds)
    await asyncio.to_thread(register, mlflow_server, accuracy=0.9)
    await watch.stays_quiet(looks=3)
    await asyncio.to_thread(register, mlflow_server, accuracy=0.6)
    await watch.look_until(2)
    await watch.stays_quiet(looks=3)
