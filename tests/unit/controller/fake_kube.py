"""An API server in one class: objects with uids and resourceVersions, lists, watches and merge patches over real HTTP.

Only what the operator relies on: optimistic locking, AlreadyExists, label selectors, watches that deliver every change,
discovery. No validation, no defaults, no controllers.
"""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

from trainyard.controller.kube.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    PVCS,
    SECRETS,
    SERVICES,
    TRAININGRUNS,
    TRAININGSCHEDULES,
    TRAININGSWEEPS,
    Resource,
)

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
CORE = (JOBS, PODS, PVCS, SECRETS, SERVICES, EVENTS, LEASES, NODES, NAMESPACES, CRDS, CONFIGMAPS, DEPLOYMENTS)
VERBS = ["get", "list", "watch", "create", "patch", "update", "delete"]

Key = tuple[str | None, str]


class FakeKube:
    """`objects[plural][namespace, name]`; `requests` is every request as `METHOD plural[/subresource]`."""

    def __init__(self, *resources: Resource) -> None:
        self.resources = {
            r.plural: r for r in (*CORE, *(resources or (TRAININGRUNS, TRAININGSCHEDULES, TRAININGSWEEPS)))
        }
        self.objects: dict[str, dict[Key, dict[str, Any]]] = {plural: {} for plural in self.resources}
        self.requests: list[str] = []
        self.queries: list[tuple[str, dict[str, str]]] = []
        """Path (with `?watch` for a watch) and query of each list."""
        self.authorizations: set[str] = set()
        self.refuses: Callable[[str, dict[str, Any]], bool] = lambda plural, body: False
        """Whether what is to be written (resource, body) is invalid."""
        self.port = 0
        self._version = 1000
        self._watchers: list[tuple[str, str | None, asyncio.Queue[bytes]]] = []
        self._history: list[tuple[int, str, dict[str, Any], bytes]] = []
        self._runner: web.AppRunner | None = None

    # The server

    async def start(self) -> None:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        # A watch ends when its client goes: kopf, in the same loop, waits for all tasks that are younger than itself.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """All connections break, the objects stay; `start` brings it back on the same port."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None
        self._watchers.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self) -> str:
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                "users": [{"name": "fake", "user": {"token": "secret"}}],
            }
        )

    def watched(self) -> set[str]:
        """Resources that somebody watches."""
        return {plural for plural, _, _ in self._watchers}

    def writes(self) -> list[str]:
        return [request for request in self.requests if not request.startswith("GET")]

    # What a test, or a controller that does not exist here, does

    def put(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create or replace, without a request."""
        metadata = body["metadata"]
        resource = self.resources[plural]
        body.setdefault("apiVersion", resource.api_version)
        body.setdefault("kind", resource.kind)
        key = (metadata.get("namespace") if resource.namespaced else None, metadata["name"])
        there = self.objects[plural].get(key)
        metadata.setdefault("uid", there["metadata"]["uid"] if there else str(uuid.uuid4()))
        metadata.setdefault("generation", 1)
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[plural][key] = body
        self.emit(plural, "MODIFIED" if there else "ADDED", body)
        return body

    def remove(self, plural: str, namespace: str | None, name: str) -> None:
        gone = self.objects[plural].pop((namespace, name))
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self.emit(plural, "DELETED", gone)

    def emit(self, plural: str, kind: str, body: dict[str, Any]) -> None:
        """Tell the watchers."""
        line = json.dumps({"type": kind, "object": body}).encode() + b"\n"
        self._history.append((self._version, plural, body, line))
        for watched, selector, events in self._watchers:
            if watched == plural and _selected(body, selector):
                events.put_nowait(line)

    # Requests

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.add(request.headers.get("Authorization", ""))
        if (found := self._discovery(request.path)) is not None:
            return web.json_response(found)
        parts = request.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = None
        if parts[:1] == ["namespaces"] and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        plural, name, subresource = (*parts, None, None, None)[:3]
        if plural not in self.resources:
            return _failure(404, "NotFound")
        self.requests.append(f"{request.method} {'/'.join(p for p in (plural, subresource) if p)}")
        if request.method == "GET" and name is None:
            selector = request.query.get("labelSelector")
            watch = request.query.get("watch") == "true"
            self.queries.append((request.path + ("?watch" if watch else ""), dict(request.query)))
            return await (self._watch(request, plural, selector) if watch else self._list(plural, namespace, selector))
        body = await request.json() if request.can_read_body else None
        return self._object(request.method, plural, (namespace, name or ""), subresource, body)

    def _object(self, method: str, plural: str, key: Key, subresource: str | None, body: Any) -> web.Response:
        namespace, name = key
        if body is not None and self.refuses(plural, body):
            return _failure(422, "Invalid")
        if method == "POST":
            name = body["metadata"]["name"]
            if (namespace, name) in self.objects[plural]:
                return _failure(409, "AlreadyExists")
            body["metadata"]["namespace"] = namespace
            return web.json_response(self.put(plural, body), status=201)
        there = self.objects[plural].get(key)
        if there is None:
            return _failure(404, "NotFound")
        if method == "DELETE":
            if (body or {}).get("preconditions", {}).get("uid") not in (None, there["metadata"]["uid"]):
                return _failure(409, "Conflict")
            self.remove(plural, namespace, name)
        elif method in ("PUT", "PATCH"):
            expected = body.get("metadata", {}).pop("resourceVersion", None)
            if expected not in (None, there["metadata"]["resourceVersion"]):
                return _failure(409, "Conflict")
            if method == "PUT":
                there["status" if subresource == "status" else "spec"] = body.get(subresource or "spec")
            else:
                _merge(there, body)
            self.put(plural, there)
        return web.json_response(there)

    async def _list(self, plural: str, namespace: str | None, selector: str | None) -> web.Response:
        items = [
            body
            for (ns, _), body in self.objects[plural].items()
            if namespace in (None, ns) and _selected(body, selector)
        ]
        return web.json_response({"items": items, "metadata": {"resourceVersion": str(self._version)}})

    async def _watch(self, request: web.Request, plural: str, selector: str | None) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        events: asyncio.Queue[bytes] = asyncio.Queue()
        since = int(request.query.get("resourceVersion") or self._version)
        for version, changed, body, line in self._history:
            if version > since and changed == plural and _selected(body, selector):
                events.put_nowait(line)
        watcher = (plural, selector, events)
        self._watchers.append(watcher)
        try:
            while True:
                await stream.write(await events.get())
        finally:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    def _discovery(self, path: str) -> dict[str, Any] | None:
        groups = sorted({(r.group, r.version) for r in self.resources.values() if r.group})
        if path == "/api":
            return {"versions": ["v1"]}
        if path == "/apis":
            versions = [
                (group, {"groupVersion": f"{group}/{version}", "version": version}) for group, version in groups
            ]
            return {"groups": [{"name": g, "versions": [v], "preferredVersion": v} for g, v in versions]}
        for group, version in (("", "v1"), *groups):
            if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
                return {
                    "resources": [
                        {
                            "name": r.plural,
                            "singularName": r.kind.lower(),
                            "kind": r.kind,
                            "namespaced": r.namespaced,
                            "verbs": VERBS,
                        }
                        for r in self.resources.values()
                        if (r.group, r.version) == (group, version)
                    ]
                }
        return None


def _selected(body: dict[str, Any], selector: str | None) -> bool:
    labels = body["metadata"].get("labels") or {}
    return all(labels.get(k) == v for k, _, v in (part.partition("=") for part in (selector or "").split(",") if part))


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _failure(code: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "reason": reason, "message": reason, "code": code}, status=code)
