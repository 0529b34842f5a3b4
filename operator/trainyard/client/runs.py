"""Runs of a namespace: create, read, change, watch, wait."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainyard.api import API_VERSION
from trainyard.client.errors import ClientError, NotFound, Rejected, TimedOut
from trainyard.client.kubeconfig import read_access
from trainyard.client.logs import Line, follow
from trainyard.client.run import Run
from trainyard.client.transport import Api

SILENCE = 60
"""Seconds without a word from a watch, after which the list is read anew: the connection may be dead."""
PAUSE = 1.0


class Runs:
    """The TrainingRuns of one namespace, or of all with `namespace` None."""

    def __init__(self, api: Api, *, namespace: str | None) -> None:
        self.api = api
        self.namespace = namespace

    def path(self, name: str = "", *, plural: str = "trainingruns") -> str:
        """Where the API server has it."""
        inside = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"/apis/{API_VERSION}{inside}/{plural}" + (f"/{name}" if name else "")

    def core(self, plural: str, name: str = "", *, group: str = "") -> str:
        """The same of pods, events and so on; `group` is such as batch/v1."""
        root = f"/apis/{group}" if group else "/api/v1"
        inside = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"{root}{inside}/{plural}" + (f"/{name}" if name else "")

    def create(self, manifest: Mapping[str, Any] | str | Path, *, dry_run: bool = False) -> Run:
        """Create a run. `manifest` is the object, YAML text, or a file. Raises Rejected where it breaks a rule."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return Run(self.api.post(self.path(), _object(manifest), **query))

    def get(self, name: str) -> Run:
        """Raises NotFound, with how to see what there is."""
        try:
            return Run(self.api.get(self.path(name)))
        except NotFound as error:
            raise NotFound(_no_run(name, self.namespace, str(error))) from error

    def list(self, *, selector: str = "") -> list[Run]:
        """All of them, the oldest first."""
        found = [Run(raw) for raw in self.api.items(self.path(), **_selected(selector))]
        return sorted(found, key=lambda run: (run.metadata.get("creationTimestamp", ""), run.namespace, run.name))

    def patch(self, name: str, change: Mapping[str, Any]) -> Run:
        """A JSON merge patch of the run."""
        try:
            return Run(self.api.patch(self.path(name), change))
        except NotFound as error:
            raise NotFound(_no_run(name, self.namespace, str(error))) from error

    def annotate(self, name: str, annotations: Mapping[str, str | None]) -> Run:
        return self.patch(name, {"metadata": {"annotations": dict(annotations)}})

    def delete(self, name: str) -> None:
        self.api.delete(self.path(name))

    def metrics(self, name: str) -> dict[str, float]:
        """The newest numbers of the training, and those of the evaluation under `eval/`."""
        return self.get(name).metrics

    def logs(self, name: str, *, follow_on: bool = False) -> Iterator[Line]:
        """What the run's pods say, step by step and attempt by attempt; with `follow_on`, until the run has ended."""
        return follow(self.api, self.get(name), again=lambda: self.get(name), follow_on=follow_on)

    def watch(self, name: str = "", *, selector: str = "", seconds: float | None = None) -> Iterator[Run]:
        """Each run that is there, then each that changes, until `seconds` are over. A deleted one is not told, except the only
        one that was asked for: that raises NotFound."""
        deadline = None if seconds is None else time.monotonic() + seconds
        told: dict[str, str] = {}
        query = _selected(selector) | ({"fieldSelector": f"metadata.name={name}"} if name else {})
        while True:
            page = self.api.get(self.path(), **query)
            for raw in page.get("items") or ():
                if _is_news(raw, told):
                    yield Run(raw)
            if name and not page.get("items"):
                raise NotFound(_no_run(name, self.namespace, ""))
            left = SILENCE if deadline is None else min(SILENCE, deadline - time.monotonic())
            if left <= 0:
                return
            version = str((page.get("metadata") or {}).get("resourceVersion", ""))
            yield from self._changes(version, query, told, left, name)
            if deadline is None or deadline - time.monotonic() > PAUSE:
                time.sleep(PAUSE)

    def _changes(
        self, version: str, query: Mapping[str, str], told: dict[str, str], left: float, name: str
    ) -> Iterator[Run]:
        asked = {**query, "watch": "true", "resourceVersion": version, "timeoutSeconds": str(max(1, int(left)))}
        try:
            for line in self.api.lines(self.path(), silence=left + 1, **asked):
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    return
                if event.get("type") == "DELETED" and name:
                    raise NotFound(f"TrainingRun {name!r} has been deleted")
                if event.get("type") in ("ADDED", "MODIFIED") and _is_news(event["object"], told):
                    yield Run(event["object"])
        except Rejected as error:
            # The list is too old to go on from: it is read again.
            if error.reason not in ("Expired", "Gone"):
                raise

    def wait(
        self, name: str, *, seconds: float | None = None, until: Callable[[Run], bool] = lambda run: run.ended
    ) -> Run:
        """The run, once `until` is true of it; by default once it has ended, well or not. Raises TimedOut, and NotFound where
        it is deleted meanwhile."""
        last: Run | None = None
        for last in self.watch(name, seconds=seconds):
            if until(last):
                return last
        raise TimedOut(f"{name}: not in {seconds:g} s ({last.standing if last is not None else 'nothing was heard'})")


def connect(
    *, namespace: str | None = "", context: str = "", kubeconfig: str = "", timeout: float = 30, acting_as: str = ""
) -> Runs:
    """The runs of a namespace: empty means the context's own, None all of them. Nothing is asked yet.

    Raises:
        NoAccess: there is no kubeconfig, or not this context in it.
    """
    access = read_access(context=context, kubeconfig=kubeconfig)
    where = access.namespace if namespace == "" else namespace
    return Runs(Api(access, timeout=timeout, acting_as=acting_as), namespace=where)


def _object(manifest: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(manifest, Mapping):
        return manifest
    from trainyard.api.manifest import InvalidManifest, read_documents

    text = manifest.read_text() if isinstance(manifest, Path) else manifest
    try:
        runs = [
            d.value for d in read_documents(text) if isinstance(d.value, dict) and d.value.get("kind") == "TrainingRun"
        ]
    except InvalidManifest as error:
        raise Rejected(str(error), reason="Invalid") from error
    if len(runs) != 1:
        raise ClientError(f"expected one TrainingRun in the manifest, found {len(runs)}")
    return runs[0]


def _selected(selector: str) -> dict[str, str]:
    return {"labelSelector": selector} if selector else {}


def _is_news(raw: Mapping[str, Any], told: dict[str, str]) -> bool:
    metadata = raw.get("metadata") or {}
    uid, version = str(metadata.get("uid", "")), str(metadata.get("resourceVersion", ""))
    if told.get(uid) == version:
        return False
    told[uid] = version
    return True


def _no_run(name: str, namespace: str | None, said: str) -> str:
    if "could not find the requested resource" in said:
        return (
            "this cluster does not know TrainingRuns: install Trainyard in it (trainyard doctor shows what is missing)"
        )
    return f"there is no TrainingRun {name!r} in namespace {namespace}: trainyard list -A shows those there are"
