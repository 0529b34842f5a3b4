"""Triggers against servers on loopback: git's own HTTP backend, and the HTTP interfaces of Prometheus, MLflow and a file."""

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.controller.schedules.git_server import GitServer, commit, git
from trainyard.api.schedule.status import TriggerStatus
from trainyard.api.schedule.triggers import DatasetDrift, GitPath, MlflowMetric, PrometheusQuery, Trigger
from trainyard.controller.schedules.observed import Look, Reading
from trainyard.controller.schedules.triggers import dataset, gitpath, mlflow, prometheus
from trainyard.controller.schedules.triggers.access import Access, SourceDown
from trainyard.controller.schedules.triggers.judge import fired, judge
from trainyard.controller.schedules.triggers.sketch import Sketch, changed_share

NOW = datetime(2026, 1, 1, tzinfo=UTC)


# Judging


def trigger(**kind: Any) -> Trigger:
    return Trigger.model_validate({"name": "t", **kind})


GIT = {"gitPath": {"url": "http://git/repo.git"}}
PROM = {"prometheus": {"url": "http://p", "query": "up", "comparison": "LessThan", "threshold": 1, "forSeconds": 60}}


@dataclass
class Life:
    """A trigger over time; every start that is possible is made."""

    trigger: Trigger
    status: TriggerStatus | None = None
    now: datetime = NOW
    fired: int = 0
    last: Reading | None = field(default=None)

    def see(self, token: str, holds: bool | None = None) -> None:
        self.last = Reading(self.now, token, token, holds)
        self._judge(Look(self.now, self.last))

    def fail(self) -> None:
        self._judge(Look(self.now, self.last, "connection refused"))

    def _judge(self, look: Look | None) -> None:
        verdict = judge(self.trigger, self.status, look, self.now)
        self.status = verdict.status
        if verdict.ready:
            self.fired += 1
            self.status = fired(verdict.status, look, self.now)

    def restart(self) -> None:
        self.last = None
        self._judge(None)

    def later(self, seconds: int) -> "Life":
        self.now += timedelta(seconds=seconds)
        return self


def test_a_change_starts_once_and_a_restart_nothing() -> None:
    life = Life(trigger(**GIT))
    for token in ("a", "a", "b", "b", "b"):
        life.see(token)
    assert life.fired == 1
    life.restart()
    life.see("b")
    assert life.fired == 1
    life.see("c")
    assert life.fired == 2


def test_a_change_while_nobody_watched_is_seen_afterwards() -> None:
    life = Life(trigger(**GIT))
    life.see("a")
    life.restart()
    life.later(10_000).see("b")
    assert life.fired == 1


def test_a_source_that_is_down_starts_nothing() -> None:
    life = Life(trigger(**GIT))
    life.see("a")
    for _ in range(60):
        life.later(10).fail()
    assert life.fired == 0
    assert life.status is not None
    assert life.status.failing
    assert life.status.message == "connection refused"
    life.see("a")
    assert (life.fired, life.status.failing) == (0, None)


def test_cooldown_holds_a_change_back_and_does_not_lose_it() -> None:
    life = Life(trigger(**GIT, cooldownSeconds=600))
    for token in ("a", "b"):
        life.see(token)
    life.later(60).see("c")
    assert life.fired == 1
    life.later(600).see("c")
    assert life.fired == 2


def test_a_state_has_to_hold_and_starts_once_while_it_lasts() -> None:
    life = Life(trigger(**PROM))
    life.see("holds", True)
    life.later(59).see("holds", True)
    assert life.fired == 0
    life.later(1).see("holds", True)
    life.later(3600).see("holds", True)
    life.restart()
    life.see("holds", True)
    assert life.fired == 1
    life.see("quiet", False)
    life.see("holds", True)
    life.later(60).see("holds", True)
    assert life.fired == 2


def test_a_state_that_lapses_in_between_counts_anew() -> None:
    life = Life(trigger(**PROM))
    for seconds, holds in ((0, True), (50, False), (5, True), (50, True)):
        life.later(seconds).see("holds" if holds else "quiet", holds)
    assert life.fired == 0
    life.later(10).see("holds", True)
    assert life.fired == 1


def test_an_outage_is_not_time_for_which_a_state_has_held() -> None:
    life = Life(trigger(**PROM))
    life.see("holds", True)
    life.later(600).fail()
    life.see("holds", True)
    assert life.fired == 0


def test_an_edited_trigger_begins_anew_and_fires_nothing() -> None:
    life = Life(trigger(**GIT))
    life.see("a")
    life.trigger = trigger(gitPath={"url": "http://git/other.git"})
    life.see("b")
    assert life.fired == 0
    life.trigger = trigger(gitPath={"url": "http://git/other.git"}, pollSeconds=77)
    life.see("c")
    assert life.fired == 1


# Sketches


def made(lines: list[bytes], *, piece: int = 1000) -> str:
    sketch, whole = Sketch(), b"\n".join(lines) + b"\n"
    for start in range(0, len(whole), piece):
        sketch.feed(whole[start : start + piece])
    return sketch.result()


@pytest.mark.parametrize("new", [0, 100, 500, 2000])
def test_a_sketch_estimates_the_share_of_changed_lines(new: int) -> None:
    lines = [b"line %d" % n for n in range(2000)]
    after = lines[new:] + [b"new %d" % n for n in range(new)]
    true = 2 * new / (2000 + new)
    assert changed_share(made(lines), made(after)) == pytest.approx(true, abs=0.1)


def test_a_sketch_does_not_depend_on_pieces_and_notices_order() -> None:
    lines = [b"line %d" % n for n in range(500)]
    shuffled = random.Random(1).sample(lines, len(lines))
    assert made(lines, piece=7) == made(lines, piece=10**6)
    assert made(lines) != made(shuffled)
    assert changed_share(made(lines), made(shuffled)) == 0
    assert len(made(lines)) < 8192


def test_minimum_change_ignores_a_few_lines() -> None:
    lines = [b"line %d" % n for n in range(1000)]
    life = Life(trigger(dataset={"url": "http://f/x", "minimumChange": 0.3}))
    life.see(made(lines))
    life.see(made([*lines, b"one more"]))
    assert life.fired == 0
    life.see(made(lines[:400]))
    assert life.fired == 1


# Sources


Serve = Callable[[Callable[[web.Request], Any]], Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners = []

    async def start(handler: Callable[[web.Request], Any]) -> str:
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "-b", "main", "repo")
    folder = tmp_path / "repo"
    commit(folder, {"docs/RUNBOOK.md": "one", "src/a/b.py": "x", "README.md": "hi"})
    return folder


async def test_git_tells_of_changes_under_the_path_alone(repository: Path, serve: Serve) -> None:
    server = GitServer(repository.parent)
    url = await serve(server)
    memory = gitpath.Memory()

    async def read(path: str) -> str:
        spec = GitPath(url=f"{url}/repo/.git", path=path)
        return (await gitpath.read(spec, Access(), memory if path == "docs" else gitpath.Memory(), now=NOW)).token

    first, file, tree = await read("docs"), await read("docs/RUNBOOK.md"), await read("")
    assert file == git(repository, "rev-parse", "HEAD:docs/RUNBOOK.md")
    assert first == git(repository, "rev-parse", "HEAD:docs")
    assert tree == git(repository, "rev-parse", "HEAD^{tree}")
    commit(repository, {"src/a/b.py": "y"})
    assert await read("docs") == first
    asked = server.requests
    assert await read("docs") == first
    assert server.requests - asked <= 2, "an unmoved branch costs no fetch"
    commit(repository, {"docs/RUNBOOK.md": "two"})
    assert await read("docs") != first
    assert await read("no/such/file") == gitpath.ABSENT


async def test_git_with_credentials(repository: Path, serve: Serve) -> None:
    access = Access(username="me", password="secret")
    url = await serve(GitServer(repository.parent, access.headers()["Authorization"]))
    spec = GitPath(url=f"{url}/repo/.git", path="docs")
    assert (await gitpath.read(spec, access, gitpath.Memory(), now=NOW)).token
    with pytest.raises(SourceDown, match="secretRef"):
        await gitpath.read(spec, Access(username="me", password="wrong"), gitpath.Memory(), now=NOW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ref": "nope"}, "no branch or tag nope"),
        ({"url": "http://127.0.0.1:1/repo"}, "cannot be reached"),
        ({"url": "{base}/other/.git"}, "not a git repository"),
    ],
)
async def test_git_that_cannot_be_read_is_no_answer(
    change: dict[str, str], said: str, repository: Path, serve: Serve
) -> None:
    url = await serve(GitServer(repository.parent))
    spec = {"url": f"{url}/repo/.git", **{k: v.replace("{base}", url) for k, v in change.items()}}
    with pytest.raises(SourceDown, match=said):
        await gitpath.read(GitPath.model_validate(spec), Access(), gitpath.Memory(), now=NOW)


def answering(body: Any, *, status: int = 200) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return handler


def vector(*values: str) -> dict[str, Any]:
    return {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, v]} for v in values]},
    }


@pytest.mark.parametrize(
    ("values", "holds"), [(("0.9",), False), (("0.7",), True), (("0.9", "0.7"), True), (("NaN", "1"), False)]
)
async def test_prometheus(values: tuple[str, ...], holds: bool, serve: Serve, session: aiohttp.ClientSession) -> None:
    spec = PrometheusQuery(
        url=await serve(answering(vector(*values))), query="acc", comparison="LessThan", threshold=0.8
    )
    assert (await prometheus.read(session, spec, Access(), now=NOW)).holds is holds


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (vector(), 200, "no data"),
        (vector("NaN"), 200, "no data"),
        ({"status": "error", "error": "parse error"}, 400, "parse error"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, 200, "gives a matrix"),
        ({}, 401, "refuses access"),
        ([], 502, "HTTP 502"),
    ],
)
async def test_prometheus_without_an_answer(
    body: Any, status: int, said: str, serve: Serve, session: aiohttp.ClientSession
) -> None:
    spec = PrometheusQuery(
        url=await serve(answering(body, status=status)), query="acc", comparison="LessThan", threshold=0.8
    )
    with pytest.raises(SourceDown, match=said):
        await prometheus.read(session, spec, Access(), now=NOW)


class Registry:
    """MLflow's REST interface, as far as it is used."""

    def __init__(self, metric: float | None = 0.7, version: str = "3") -> None:
        self.metric, self.version, self.alias = metric, version, "champion"

    async def __call__(self, request: web.Request) -> web.Response:
        what = request.path.removeprefix("/api/2.0/mlflow/")
        version = {"version": self.version, "run_id": "r1"}
        if what == "registered-models/alias" and request.query["alias"] == self.alias:
            return web.json_response({"model_version": version})
        if what == "registered-models/get-latest-versions":
            return web.json_response({"model_versions": [version, {"version": "1", "run_id": "r0"}]})
        if what == "runs/get" and request.query["run_id"] == "r1":
            metrics = [] if self.metric is None else [{"key": "accuracy", "value": self.metric}]
            return web.json_response({"run": {"data": {"metrics": metrics}}})
        return web.json_response({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "nope"}, status=404)


def mlflow_spec(url: str, **changes: Any) -> MlflowMetric:
    given = {
        "trackingUri": url,
        "model": "m",
        "alias": "champion",
        "metric": "accuracy",
        "comparison": "LessThan",
        "threshold": 0.8,
    }
    return MlflowMetric.model_validate({k: v for k, v in (given | changes).items() if v is not None})


async def test_mlflow_judges_a_version_once(serve: Serve, session: aiohttp.ClientSession) -> None:
    registry = Registry()
    url = await serve(registry)
    life = Life(trigger(mlflowMetric=mlflow_spec(url).model_dump(by_alias=True, exclude_none=True)))

    async def look() -> None:
        reading = await mlflow.read(session, mlflow_spec(url), Access(), now=NOW)
        life.see(reading.token, reading.holds)

    await look()
    assert life.fired == 1
    for metric in (0.9, 0.7, None, 0.7):
        registry.metric = metric
        await look()
    assert life.fired == 1
    registry.version = "4"
    await look()
    assert life.fired == 2


@pytest.mark.parametrize(("missing", "holds"), [("Ignore", False), ("Fire", True)])
@pytest.mark.parametrize("change", [{"alias": "other"}, {"metric": "f1"}])
async def test_mlflow_without_a_model(
    missing: str, holds: bool, change: dict[str, str], serve: Serve, session: aiohttp.ClientSession
) -> None:
    spec = mlflow_spec(await serve(Registry()), missing=missing, **change)
    assert (await mlflow.read(session, spec, Access(), now=NOW)).holds is holds


async def test_mlflow_by_stage_and_a_server_that_is_something_else(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    spec = mlflow_spec(await serve(Registry()), alias=None, stage="Production")
    assert (await mlflow.read(session, spec, Access(), now=NOW)).token == "version 3"
    wrong = mlflow_spec(await serve(answering({"detail": "Not Found"}, status=404)), missing="Fire")
    with pytest.raises(SourceDown, match="HTTP 404"):
        await mlflow.read(session, wrong, Access(), now=NOW)


async def test_a_dataset_is_downloaded_only_when_it_has_changed(serve: Serve, session: aiohttp.ClientSession) -> None:
    content, sent = {"body": b"a\nb\n"}, []

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        tag = f'"{hash(content["body"])}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304)
        sent.append(request.path)
        return web.Response(body=content["body"], headers={"ETag": tag})

    spec, memory = DatasetDrift(url=await serve(handler) + "/x.jsonl"), dataset.Memory()

    async def token() -> str:
        return (await dataset.read(session, spec, Access(token="secret"), memory, now=NOW)).token

    first = await token()
    assert await token() == first
    assert len(sent) == 1
    content["body"] += b"c\n"
    assert await token() != first


async def test_a_download_that_breaks_off_is_no_change(serve: Serve, session: aiohttp.ClientSession) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half a file")
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(SourceDown, match="cannot be reached"):
        await dataset.read(session, DatasetDrift(url=await serve(handler)), Access(), dataset.Memory(), now=NOW)


def test_secrets_are_never_shown() -> None:
    assert "secret" not in repr(Access(username="me", password="secret", token="secret"))
    with pytest.raises(SourceDown, match="Secret s does not exist"):
        Access.from_secret(None, "s")
    with pytest.raises(SourceDown, match="none of username"):
        Access.from_secret({"data": {"other": "eA=="}}, "s")
