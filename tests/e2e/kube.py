"""The API server as the end-to-end tests use it: objects as plain JSON, and waiting that watches.

Nothing here polls on a timer. `wait` lists once and then follows a watch until the condition holds; a watch that breaks
off (the API server restarts, its history is too short) is begun again with a list. Only reads are repeated by
themselves.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError

from tests.api.server import Answer, ApiServer
from trainyard.controller.kube.resources import NAMESPACES, PODS, Resource

Object = dict[str, Any]
Found = Mapping[str, Any]
TimedLines = list[tuple[datetime, str]]
RECONNECT_SECONDS = 0.5
STARTUP_SECONDS = 90
"""How long the API server may be away before a read is given up."""
SILENCE_SECONDS = 10.0
"""A stream is begun anew after so long without a word, so that a deadline is noticed in time."""

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS = Resource("", "v1", "events", "Event")
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")


class Refused(AssertionError):
    """The API server said no where a test needs a yes."""

    def __init__(self, what: str, answer: Answer) -> None:
        super().__init__(f"{what}: {answer.code} {answer.message}")
        self.answer = answer


class TimedOut(AssertionError):
    """What a test waited for did not come; the message carries the last state seen."""


@dataclass(frozen=True)
class Change:
    """One event of a watch. `type` is ADDED, MODIFIED or DELETED; `at` is monotonic, when it was read."""

    type: str
    object: Object
    at: float


class Kube:
    """Requests to the local cluster."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, or None where there is none."""
        answer = self._read(resource.path(namespace, name))
        return None if answer.code == 404 else self._body(f"get {resource.plural} {name}", answer)

    def need(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The object, which has to be there."""
        found = self.get(resource, namespace, name)
        assert found is not None, f"{resource.kind} {namespace}/{name} does not exist"
        return found

    def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """All objects that the selectors match."""
        items: list[Object] = self._list(resource, namespace, labels=labels, fields=fields)["items"]
        return items

    def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Create, with kubectl's strict check of field names."""
        return self._body(f"create {resource.plural}", self.try_create(resource, namespace, body))

    def try_create(self, resource: Resource, namespace: str | None, body: Object) -> Answer:
        """The same for an object that may be refused."""
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return self.server.request("POST", resource.path(namespace), whole, fieldValidation="Strict")

    def merge(self, resource: Resource, namespace: str | None, name: str, change: Object) -> Object:
        """JSON merge patch."""
        answer = self.server.request(
            "PATCH", resource.path(namespace, name), change, content_type="application/merge-patch+json"
        )
        return self._body(f"patch {resource.plural} {name}", answer)

    def delete(self, resource: Resource, namespace: str | None, name: str, *, grace: int | None = None) -> None:
        """Delete in the background; an object that is gone already is fine."""
        options: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        answer = self.server.request("DELETE", resource.path(namespace, name), options)
        if answer.code != 404:
            self._body(f"delete {resource.plural} {name}", answer)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        seconds: float,
        name: str = "",
        labels: str = "",
        stop: threading.Event | None = None,
        tell_absence: bool = False,
    ) -> Iterator[Change]:
        """What is there (as ADDED), then every change, until `seconds` are over or `stop` is set (seen within seconds).

        With `tell_absence`, a list without any object comes as a DELETED of nothing.
        After a break the list is given anew; an object that went away meanwhile comes as DELETED, as it was last seen.
        """
        deadline = time.monotonic() + seconds
        stop = stop or threading.Event()
        fields = f"metadata.name={name}" if name else ""
        known: dict[str, Object] = {}
        while time.monotonic() < deadline and not stop.is_set():
            listed = self._list(resource, namespace, labels=labels, fields=fields)
            now = {item["metadata"]["uid"]: item for item in listed["items"]}
            for uid in known.keys() - now.keys():
                yield Change("DELETED", known.pop(uid), time.monotonic())
            for uid, item in now.items():
                if uid not in known or known[uid]["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                    yield Change("MODIFIED" if uid in known else "ADDED", _typed(resource, item), time.monotonic())
            if tell_absence and not now:
                yield Change("DELETED", {}, time.monotonic())
            known = now
            version = listed["metadata"]["resourceVersion"]
            for change in self._follow(resource, namespace, deadline, version, stop, labels=labels, fields=fields):
                uid = change.object["metadata"]["uid"]
                if change.type == "DELETED":
                    known.pop(uid, None)
                else:
                    known[uid] = change.object
                yield change

    def wait(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        holds: Callable[[Object | None], bool],
        *,
        seconds: float,
        what: str,
    ) -> Object | None:
        """The first version of the object for which `holds` is true; None stands for its absence.

        Raises TimedOut with `what` and the last version's status.
        """
        last: Object | None = None
        for change in self.watch(resource, namespace, seconds=seconds, name=name, tell_absence=True):
            last = None if change.type == "DELETED" else change.object
            if holds(last):
                return last
        raise TimedOut(f"{resource.kind} {name}: {what} did not come in {seconds:.0f} s; {brief(last)}")

    def wait_gone(self, resource: Resource, namespace: str | None, name: str, *, seconds: float) -> None:
        """Until the object does not exist."""
        self.wait(resource, namespace, name, lambda o: o is None, seconds=seconds, what="its end")

    def log(self, namespace: str, pod: str) -> str:
        """The log of a pod's only container so far."""
        return "\n".join(self._log_lines(namespace, pod, seconds=30, follow=False))

    def timed_log(self, namespace: str, pod: str) -> TimedLines:
        """The lines of a log with the moment at which each was written."""
        lines = self._log_lines(namespace, pod, seconds=30, follow=False, timestamps="true")
        return [(datetime.fromisoformat(f"{at[:26]}+00:00"), text) for at, _, text in (s.partition(" ") for s in lines)]

    def follow_log(self, namespace: str, pod: str, *, seconds: float) -> Iterator[str]:
        """Lines of a pod's log as they come, until the container ends or `seconds` are over."""
        yield from self._log_lines(namespace, pod, seconds=seconds, follow=True)

    def _log_lines(self, namespace: str, pod: str, *, seconds: float, follow: bool, **more: str) -> Iterator[str]:
        path, deadline = f"{PODS.path(namespace, pod)}/log", time.monotonic() + seconds
        query = {**more, **({"follow": "true"} if follow else {})}
        try:
            with self.server.stream(path, timeout=urllib3.Timeout(connect=10, read=seconds), **query) as response:
                if response.status != 200:
                    raise Refused(f"log of {pod}", Answer(response.status, json.loads(response.data)))
                for line in _lines(response):
                    yield line
                    if time.monotonic() > deadline:
                        return
        except HTTPError:
            return

    def _follow(
        self,
        resource: Resource,
        namespace: str | None,
        deadline: float,
        version: str,
        stop: threading.Event,
        *,
        labels: str,
        fields: str,
    ) -> Iterator[Change]:
        """One watch after the other, each from where the last one ended; returns when history is lost."""
        while (left := deadline - time.monotonic()) > 0 and not stop.is_set():
            query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"} | _selectors(
                labels, fields
            )
            query["timeoutSeconds"] = str(max(1, int(min(left, 300))))
            silence = min(left, SILENCE_SECONDS)
            try:
                with self.server.stream(
                    resource.path(namespace), timeout=urllib3.Timeout(connect=10, read=silence), **query
                ) as stream:
                    if stream.status != 200:
                        return
                    for line in _lines(stream):
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            return
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield Change(event["type"], event["object"], time.monotonic())
            except ReadTimeoutError:
                continue
            except (HTTPError, json.JSONDecodeError):
                time.sleep(min(RECONNECT_SECONDS, max(0.0, deadline - time.monotonic())))

    def _list(self, resource: Resource, namespace: str | None, *, labels: str, fields: str) -> Object:
        answer = self._read(resource.path(namespace), **_selectors(labels, fields))
        return self._body(f"list {resource.plural}", answer)

    def _read(self, path: str, **query: str) -> Answer:
        """A read; while the API server is away (tests restart it) it is tried again."""
        deadline = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                answer = self.server.request("GET", path, **query)
            except HTTPError:
                if time.monotonic() > deadline:
                    raise
            else:
                if answer.code not in (429, 500, 503, 504) or time.monotonic() > deadline:
                    return answer
            time.sleep(RECONNECT_SECONDS)

    @staticmethod
    def _body(what: str, answer: Answer) -> Object:
        if not answer.accepted:
            raise Refused(what, answer)
        return answer.body


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}


def _typed(resource: Resource, item: Object) -> Object:
    """Items of a list lack the type that events of a watch carry."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **item}


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    rest = b""
    for chunk in response.stream(amt=65536):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def brief(found: Mapping[str, Any] | None) -> str:
    """An object's status in one line, for messages of failed tests."""
    if found is None:
        return "it does not exist"
    status = found.get("status", {})
    return "last seen: " + json.dumps(status, separators=(",", ":"))[:3000]


def namespace_of(kube: Kube, name: str, *, labels: Mapping[str, str]) -> None:
    """Make a namespace and wait until pods can be made in it."""
    kube.create(NAMESPACES, None, {"metadata": {"name": name, "labels": dict(labels)}})
    kube.wait(SERVICE_ACCOUNTS, name, "default", lambda o: o is not None, seconds=30, what="the service account")
