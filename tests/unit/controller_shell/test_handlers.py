"""The watch engine for real, against an API server of loopback HTTP: what it asks for, and what it hands on."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from trainyard.controller import handlers
from trainyard.controller.cluster import JOBS, NAMESPACES, PODS, PVCS, TRAININGRUNS
from trainyard.controller.inbox import Inbox
from trainyard.controller.resources import Resource
from trainyard.controller.transport import Credentials
from unit.controller_shell.fakes import eventually

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
SERVED = (TRAININGRUNS, JOBS, PODS, PVCS, NAMESPACES, CRDS)


class Api:
    """Discovery, lists and watches of the few resources that matter here. Writes are refused, and remembered."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict]] = {}
        self.lists: list[tuple[str, dict[str, str]]] = []
        self.watches: dict[str, asyncio.Queue[dict]] = {}
        self.writes: list[str] = []
        self.headers: list[str] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers.get("Authorization", ""))
        if request.method != "GET":
            self.writes.append(f"{request.method} {request.path}")
            return web.json_response({}, status=500)
        if (found := self.discovery(request.path)) is not None:
            return web.json_response(found)
        resource = next((r for r in SERVED if request.path.endswith(f"/{r.plural}")), None)
        if resource is None:
            return web.json_response({}, status=404)
        if request.query.get("watch") == "true":
            return await self.watch(request, resource)
        self.lists.append((request.path, dict(request.query)))
        items = self.objects.get(resource.plural, [])
        return web.json_response({"items": items, "metadata": {"resourceVersion": "100"}})

    def discovery(self, path: str) -> dict | None:
        groups = sorted({(r.group, r.version) for r in SERVED if r.group})
        if path == "/api":
            return {"versions": ["v1"]}
        if path == "/apis":
            described = [
                {
                    "name": group,
                    "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                }
                for group, version in groups
            ]
            return {"groups": described}
        for group, version in (("", "v1"), *groups):
            if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
                verbs = ["get", "list", "watch", "create", "patch", "update", "delete"]
                return {
                    "resources": [
                        {
                            "name": r.plural,
                            "singularName": r.kind.lower(),
                            "kind": r.kind,
                            "namespaced": r.namespaced,
                            "verbs": verbs,
                        }
                        for r in SERVED
                        if (r.group, r.version) == (group, version)
                    ]
                }
        return None

    async def watch(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        self.lists.append((request.path + "?watch", dict(request.query)))
        stream = web.StreamResponse()
        await stream.prepare(request)
        events = self.watches[resource.plural] = asyncio.Queue()
        while True:
            await stream.write(json.dumps(await events.get()).encode() + b"\n")


class Keys:
    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def add(self, key, *, urgent=False):
        self.all.append(key)

    def add_after(self, key, seconds):
        self.all.append(key)


class Runs:
    def run_seen(self, namespace, name, state): ...
    def run_gone(self, namespace, name): ...


@pytest.fixture
async def api():
    made = Api()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "http://{}:{}".format(*runner.addresses[0][:2])  # type: ignore[attr-defined]
    yield made
    await runner.cleanup()


@asynccontextmanager
async def watching(api: Api, *namespaces: str, gently: bool = False):
    """`gently` takes seconds here: kopf waits for all tasks younger than itself, so for this very API server too."""
    keys = Keys()

    async def credentials() -> Credentials:
        return Credentials(server=api.url, authorization="Bearer secret")  # type: ignore[attr-defined]

    stop = asyncio.Event()
    started: list[bool] = []
    task = asyncio.ensure_future(
        handlers.watch(
            inbox=Inbox(queue=keys, runs=Runs()),
            credentials=credentials,
            namespaces=namespaces,
            stop=stop,
            started=lambda: started.append(True),
        )
    )
    await eventually(lambda: len(api.watches) == 4 or task.done(), 20)
    assert started == [True]
    yield keys
    assert not task.done()
    if gently:
        stop.set()
        await asyncio.wait_for(task, 15)
    else:
        task.cancel()
        await asyncio.wait([task], timeout=15)
    assert task.done()


def run(name: str) -> dict:
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1", "generation": 1},
        "spec": {},
    }


def job(name: str) -> dict:
    labels = {"trainyard.dev/run": name, "app.kubernetes.io/managed-by": "trainyard"}
    metadata = {
        "namespace": "ns",
        "name": f"{name}-train-1",
        "uid": f"job-{name}",
        "labels": labels,
        "resourceVersion": "2",
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": {"active": 1}}


async def test_runs_and_children_arrive_as_keys_and_nothing_is_written(api: Api):
    api.objects["trainingruns"] = [run("listed")]
    async with watching(api, gently=True) as keys:
        await eventually(lambda: ("ns", "listed") in keys.all)
        await api.watches["trainingruns"].put({"type": "ADDED", "object": run("fresh")})
        await api.watches["jobs"].put({"type": "MODIFIED", "object": job("worked")})
        await api.watches["trainingruns"].put({"type": "DELETED", "object": run("gone")})
        await eventually(lambda: {("ns", "fresh"), ("ns", "worked"), ("ns", "gone")} <= set(keys.all))
    assert api.writes == []
    assert set(api.headers) == {"Bearer secret"}


async def test_children_are_selected_by_the_api_server(api: Api):
    async with watching(api):
        pass
    sent = {path.rpartition("/")[2]: query for path, query in api.lists}
    for child in ("jobs", "pods", "persistentvolumeclaims"):
        for request in (child, f"{child}?watch"):
            assert sent[request]["labelSelector"] == "app.kubernetes.io/managed-by=trainyard", request
    for request in ("trainingruns", "trainingruns?watch"):
        assert "labelSelector" not in sent[request]
    assert not {"namespaces", "customresourcedefinitions"} & sent.keys()


async def test_with_namespaces_only_those_are_asked_for(api: Api):
    async with watching(api, "team-a"):
        pass
    assert api.lists
    assert all("/namespaces/team-a/" in path for path, _ in api.lists)


async def test_a_run_that_changes_again_and_again_arrives_each_time(api: Api):
    async with watching(api) as keys:
        for generation in range(2, 12):
            changed = run("busy")
            changed["metadata"] |= {"generation": generation, "resourceVersion": str(generation)}
            await api.watches["trainingruns"].put({"type": "MODIFIED", "object": changed})
        await eventually(lambda: keys.all.count(("ns", "busy")) == 10)
