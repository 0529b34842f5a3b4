"""Sources on loopback: git's own HTTP backend, and the HTTP interfaces of Prometheus, MLflow and a file."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.unit.controller.schedules.git_server import GitServer, commit, git
from tests.unit.controller.schedules.loopback import Serve
from tests.unit.controller.schedules.test_triggers import Life, trigger
from trainyard.api.schedule.triggers import DatasetDrift, GitPath, MlflowMetric, PrometheusQuery
from trainyard.controller.schedules.triggers import dataset, gitpath, mlflow, prometheus
from trainyard.controller.schedules.triggers.access import Access
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.answer import Answer, SourceDown
from trainyard.controller.schedules.triggers.door import Door
from trainyard.controller.schedules.triggers.wall import Wall


async def look(read: Callable[..., Answer], *arguments: Any, access: Access | None = None) -> Answer:
    """A look in this process instead of one of its own, so that its parts can be seen to fail."""
    return await asyncio.to_thread(read, Door(access or Access(), Wall(Rules())), *arguments)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "-b", "main", "repo")
    folder = tmp_path / "repo"
    commit(folder, {"docs/RUNBOOK.md": "one", "src/a/b.py": "x", "README.md": "hi"})
    return folder


async def test_git_tells_of_changes_under_the_path_alone(repository: Path, serve: Serve) -> None:
    server = GitServer(repository.parent)
    url = await serve(server)
    marks: dict[str, Mapping[str, str]] = {}

    async def read(path: str) -> str:
        spec = GitPath(url=f"{url}/repo/.git", path=path)
        answer = await look(gitpath.read, spec, marks.get(path, {}))
        if path == "docs":
            marks[path] = answer.marks
        return answer.token

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
    assert (await look(gitpath.read, spec, {}, access=access)).token
    with pytest.raises(SourceDown, match="secretRef"):
        await look(gitpath.read, spec, {}, access=Access(username="me", password="wrong"))


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
        await look(gitpath.read, GitPath.model_validate(spec), {})


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
async def test_prometheus(values: tuple[str, ...], holds: bool, serve: Serve) -> None:
    spec = PrometheusQuery(
        url=await serve(answering(vector(*values))), query="acc", comparison="LessThan", threshold=0.8
    )
    assert (await look(prometheus.read, spec)).holds is holds


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
async def test_prometheus_without_an_answer(body: Any, status: int, said: str, serve: Serve) -> None:
    spec = PrometheusQuery(
        url=await serve(answering(body, status=status)), query="acc", comparison="LessThan", threshold=0.8
    )
    with pytest.raises(SourceDown, match=said):
        await look(prometheus.read, spec)


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


async def test_mlflow_judges_a_version_once(serve: Serve) -> None:
    registry = Registry()
    url = await serve(registry)
    life = Life(trigger(mlflowMetric=mlflow_spec(url).model_dump(by_alias=True, exclude_none=True)))

    async def look_at_it() -> None:
        reading = await look(mlflow.read, mlflow_spec(url))
        life.see(reading.token, reading.holds)

    await look_at_it()
    assert life.fired == 1
    for metric in (0.9, 0.7, None, 0.7):
        registry.metric = metric
        await look_at_it()
    assert life.fired == 1
    registry.version = "4"
    await look_at_it()
    assert life.fired == 2


@pytest.mark.parametrize(("missing", "holds"), [("Ignore", False), ("Fire", True)])
@pytest.mark.parametrize("change", [{"alias": "other"}, {"metric": "f1"}])
async def test_mlflow_without_a_model(missing: str, holds: bool, change: dict[str, str], serve: Serve) -> None:
    spec = mlflow_spec(await serve(Registry()), missing=missing, **change)
    assert (await look(mlflow.read, spec)).holds is holds


async def test_mlflow_by_stage_and_a_server_that_is_something_else(serve: Serve) -> None:
    spec = mlflow_spec(await serve(Registry()), alias=None, stage="Production")
    assert (await look(mlflow.read, spec)).token == "version 3"
    wrong = mlflow_spec(await serve(answering({"detail": "Not Found"}, status=404)), missing="Fire")
    with pytest.raises(SourceDown, match="HTTP 404"):
        await look(mlflow.read, wrong)


async def test_a_dataset_is_downloaded_only_when_it_has_changed(serve: Serve) -> None:
    content, sent = {"body": b"a\nb\n"}, []

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        tag = f'"{hash(content["body"])}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304)
        sent.append(request.path)
        return web.Response(body=content["body"], headers={"ETag": tag})

    spec, marks = DatasetDrift(url=await serve(handler) + "/x.jsonl"), [{}]

    async def token() -> str:
        answer = await look(dataset.read, spec, marks[-1], access=Access(token="secret"))
        marks.append(answer.marks)
        return answer.token

    first = await token()
    assert await token() == first
    assert len(sent) == 1
    content["body"] += b"c\n"
    assert await token() != first


async def test_a_download_that_breaks_off_is_no_change(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half a file")
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(SourceDown, match="cannot be reached"):
        await look(dataset.read, DatasetDrift(url=await serve(handler)), {})


def test_secrets_are_never_shown() -> None:
    assert "secret" not in repr(Access(username="me", password="secret", token="secret"))
    with pytest.raises(SourceDown, match="Secret s does not exist"):
        Access.from_secret(None, "s")
    with pytest.raises(SourceDown, match="none of username"):
        Access.from_secret({"data": {"other": "eA=="}}, "s")
