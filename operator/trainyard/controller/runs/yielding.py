"""Deployments that make room for a training: how they are taken down, and when they get their replicas back. Pure.

What was taken stands on the Deployment itself: how many replicas it had, and for which runs it is down. So nothing is lost
with an operator that dies at any moment, and two runs may want the same room. A run takes it anew for every attempt; both
sides write onto the version that they have read, so a Deployment that is given back at the moment at which another attempt
begins is given back or taken, and never both.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.api import GROUP
from trainyard.api.conditions import State
from trainyard.api.steps import step_named
from trainyard.controller.kube.resources import DEPLOYMENTS
from trainyard.controller.manifests.metadata import RunRef
from trainyard.controller.runs.actions import Patch
from trainyard.controller.runs.status import is_finished
from trainyard.controller.runs.told import read_status

YIELDED_LABEL = f"{GROUP}/yielded"
"""On every Deployment that is down for a run."""
YIELDED_ANNOTATION = f"{GROUP}/yielded-to"
"""Beside it: `{"replicas": 2, "to": {run's uid: {"run": "namespace/name", "job": Job that it is down for}}}`."""

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Yielding:
    """A Deployment as it was seen; None where there is none."""

    namespace: str
    name: str
    raw: Raw | None = None
    pods: tuple[str, ...] = ()
    """Names of its pods that are still there."""
    refusal: str = ""
    """Why it could not be read."""


@dataclass(frozen=True)
class Room:
    """What keeps a training from beginning, and what is to be done about it."""

    message: str
    actions: tuple[Patch, ...] = ()
    stalled: bool = False


@dataclass(frozen=True)
class Holder:
    """A run for which a Deployment is down."""

    uid: str
    namespace: str
    name: str
    job: str


@dataclass(frozen=True)
class Note:
    """What stands on a Deployment that is down."""

    replicas: int
    holders: tuple[Holder, ...]

    @classmethod
    def on(cls, raw: Raw) -> "Note | None":
        """None where nothing stands, or nothing that can be read: then it is nobody's."""
        text = (raw["metadata"].get("annotations") or {}).get(YIELDED_ANNOTATION)
        try:
            said = json.loads(text or "")
            split = {uid: (*one["run"].split("/", 1), one["job"]) for uid, one in said["to"].items()}
            holders = tuple(Holder(uid, namespace, name, job) for uid, (namespace, name, job) in split.items())
            return cls(int(said["replicas"]), holders)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def text(self) -> str:
        """As it stands in the annotation: who came first stands first."""
        to = {h.uid: {"run": f"{h.namespace}/{h.name}", "job": h.job} for h in self.holders}
        return json.dumps({"replicas": self.replicas, "to": to})


def make_room(seen: Sequence[Yielding], *, run: RunRef, job: str) -> Room | None:
    """What is to be done before this Job of the run may be made; None when all of them are down for it and gone."""
    me = Holder(run.uid, run.namespace, run.name, job)
    actions: list[Patch] = []
    leaving: list[str] = []
    for number, one in enumerate(seen):
        field = f"spec.placement.yieldFrom[{number}]"
        if one.refusal:
            return Room(f"{field}: {one.refusal}", stalled=True)
        if one.raw is None:
            told = f"Deployment {one.name} does not exist in namespace {one.namespace}; create it, or correct the name"
            return Room(f"{field}: {told}", stalled=True)
        replicas = _replicas(one.raw)
        note = Note.on(one.raw)
        if note is None or me not in note.holders or replicas:
            others = tuple(h for h in note.holders if h.uid != me.uid) if note else ()
            # Scaled up again meanwhile, by hand or by what applies it: that is what it is to have afterwards.
            before = note.replicas if note and not replicas else replicas
            actions.append(_written(one.raw, Note(before, (*others, me)), replicas=0))
        if one.pods or (one.raw.get("status") or {}).get("replicas"):
            leaving.append(f"{one.name} ({', '.join(one.pods) or 'its pods'})")
    if not actions and not leaving:
        return None
    names = ", ".join(leaving) or ", ".join(one.name for one in seen)
    return Room(f"waiting for Deployment {names} to make room for the training", tuple(actions))


def give_back(raw: Raw, *, needs: Callable[[Holder], bool]) -> Patch | None:
    """What is to be written on a Deployment that is down, given which runs still need its place; None for nothing."""
    note = Note.on(raw)
    left = tuple(h for h in note.holders if needs(h)) if note else ()
    if note is not None and left:
        return _written(raw, Note(note.replicas, left)) if left != note.holders else None
    metadata = {"labels": {YIELDED_LABEL: None}, "annotations": {YIELDED_ANNOTATION: None}}
    if note is None or _replicas(raw):
        return _patch(raw, metadata)
    return _patch(raw, metadata, replicas=note.replicas)


def still_needs(holder: Holder, run: Raw | None) -> bool:
    """Whether the run, as it is now, needs the place: it is the same one, under way, and has a training before it."""
    if run is None or run["metadata"]["uid"] != holder.uid:
        return False
    status = read_status(run.get("status"))
    # One that is about to go on takes it anew.
    if is_finished(status) or status.state == State.SUSPENDED:
        return False
    trainings = [step for step in status.steps or () if step_named(step.name).gets_devices]
    return not trainings or any(step.state in ("Waiting", "Running") for step in trainings)


def _replicas(raw: Raw) -> int:
    """How many it is to have; the API server fills in one."""
    return int(raw["spec"].get("replicas", 1))


def _written(raw: Raw, note: Note, **spec: Any) -> Patch:
    return _patch(raw, {"labels": {YIELDED_LABEL: "true"}, "annotations": {YIELDED_ANNOTATION: note.text()}}, **spec)


def _patch(raw: Raw, metadata: Mapping[str, Any], **spec: Any) -> Patch:
    """Onto the version that was read."""
    seen = raw["metadata"]
    body: dict[str, Any] = {"metadata": {"resourceVersion": seen["resourceVersion"], **metadata}}
    if spec:
        body["spec"] = spec
    return Patch(DEPLOYMENTS, seen["name"], body, namespace=seen["namespace"])
