"""What Flux's kustomize-controller does to a cluster, step by step, by the API server's own means.

Its controllers cannot be built everywhere, so its way is followed instead (fluxcd.io, "Kustomization": server-side apply,
garbage collection, health assessment): the folder is built with kustomize; fields that kubectl wrote are taken over, so
that edits by hand are undone; every object is applied with the field manager `kustomize-controller` and force; what is
not in the folder any more is deleted; and health is what Flux's own library makes of the objects (tests/kstatus).
"""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.kstatus import readings
from tests.e2e.kube import Kube, Object, Refused
from tests.e2e.measure import FOLDER
from trainyard.api.manifest import read_documents
from trainyard.controller.kube.resources import NAMESPACES, TRAININGRUNS, TRAININGSCHEDULES

MANAGER = "kustomize-controller"
KINDS = {r.kind: r for r in (NAMESPACES, TRAININGRUNS, TRAININGSCHEDULES)}
TAKEN_OVER = ("kubectl", "before-first-apply")
Key = tuple[str, str, str]


@dataclass
class Flux:
    """One Kustomization over one folder."""

    kube: Kube
    folder: Path
    inventory: set[Key] = field(default_factory=set)

    def reconcile(self) -> None:
        """Build, apply, prune. Raises AssertionError with the API server's message, as the Kustomization would show it."""
        objects = self.build()
        for wanted in objects:
            self._undo_edits(wanted)
            self._apply(wanted)
        now = {_key(o) for o in objects}
        for kind, namespace, name in self.inventory - now:
            self.kube.delete(KINDS[kind], namespace or None, name)
        self.inventory = now

    def build(self) -> list[Object]:
        """The folder's objects, namespaces first."""
        kubectl = FOLDER.parent / "bin" / "kubectl"
        done = subprocess.run([str(kubectl), "kustomize", str(self.folder)], capture_output=True, text=True, check=True)
        objects: list[Object] = [d.value for d in read_documents(done.stdout)]
        return sorted(objects, key=lambda o: o["kind"] != "Namespace")

    def health(self) -> dict[str, str]:
        """kstatus of each object, by name."""
        keys = sorted(self.inventory)
        found = [self.kube.need(KINDS[kind], namespace or None, name) for kind, namespace, name in keys]
        return dict(zip((name for _, _, name in keys), readings(found), strict=True))

    def _apply(self, wanted: Object) -> None:
        resource = KINDS[wanted["kind"]]
        answer = self.kube.server.request(
            "PATCH",
            resource.path(wanted["metadata"].get("namespace"), wanted["metadata"]["name"]),
            wanted,
            content_type="application/apply-patch+yaml",
            fieldManager=MANAGER,
            force="true",
        )
        if answer.code not in (200, 201):
            raise Refused(f"apply {wanted['kind']} {wanted['metadata']['name']}", answer)

    def _undo_edits(self, wanted: Object) -> None:
        """Fields of kubectl become Flux's own, so that the apply that follows removes them."""
        resource, metadata = KINDS[wanted["kind"]], wanted["metadata"]
        there = self.kube.get(resource, metadata.get("namespace"), metadata["name"])
        if there is None:
            return
        fields = there["metadata"]["managedFields"]
        theirs = [f for f in fields if f["manager"].startswith(TAKEN_OVER) and not f.get("subresource")]
        if not theirs:
            return
        own = next((f for f in fields if f["manager"] == MANAGER and f["operation"] == "Apply"), None)
        merged: Object = dict(own["fieldsV1"]) if own else {}
        for entry in theirs:
            merged = _union(merged, entry["fieldsV1"])
        kept = [f for f in fields if f is not own and f not in theirs]
        entry = {**(own or theirs[0]), "manager": MANAGER, "operation": "Apply", "fieldsV1": merged}
        patch = [
            {"op": "replace", "path": "/metadata/managedFields", "value": [*kept, entry]},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": there["metadata"]["resourceVersion"]},
        ]
        answer = self.kube.server.request(
            "PATCH",
            resource.path(metadata.get("namespace"), metadata["name"]),
            patch,
            content_type="application/json-patch+json",
            fieldManager=MANAGER,
        )
        assert answer.code == 200, answer.message


def _union(one: Object, other: Object) -> Object:
    return one | {key: _union(one.get(key, {}), value) for key, value in other.items()}


def _key(found: Object) -> Key:
    return found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]


def managers(found: Object) -> dict[str, set[str]]:
    """Who owns fields of an object: `spec` and `status` by manager."""
    owned: dict[str, set[str]] = {}
    for entry in found["metadata"]["managedFields"]:
        parts = {key.removeprefix("f:") for key in entry["fieldsV1"]} & {"spec", "status"}
        owned.setdefault(entry["manager"], set()).update(parts)
    return owned


def dump(found: Object) -> str:
    """JSON, which is YAML too."""
    return json.dumps(found, indent=1)
