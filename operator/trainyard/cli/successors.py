"""A new run of the spec of one that has ended: the way to go on, because an ended run stays ended.

It gets the next free name, the same volume, and where there is one, a checkpoint to go on from.
"""

import re
from collections.abc import Mapping
from typing import Any

from trainyard.api.names import CANCEL_ANNOTATION, CHECKPOINTS_MOUNT
from trainyard.cli.exits import Misused
from trainyard.client import Rejected, Run, Runs

NAME_LIMIT = 50
TRIES = 20
NOT_HANDED_ON = ("kubectl.kubernetes.io/", "trainyard.dev/")
"""Annotations that were about the other run."""
_STEP = re.compile(r"(?:.*/)?(?:step-)?(\d+)/?$")


def checkpoint_path(run: Run, words: str) -> str:
    """`spec.checkpoints.resumeFrom` for what people write: a step of this run as `10000`, `step-10000` or
    `/checkpoints/step-10000`; a whole path on the volume; or another run's name.

    Raises:
        Misused: it leaves the volume.
    """
    if ".." in words.split("/"):
        raise Misused(f"--from {words!r} leaves the volume: give a path without ..")
    path = words.removeprefix(CHECKPOINTS_MOUNT).strip("/")
    inside = path.removeprefix("checkpoints/") if words.startswith("/") else path
    if (found := _STEP.fullmatch(inside)) and "/" not in inside:
        return f"{run.work_dir}/checkpoints/step-{int(found[1]):08d}"
    if not path:
        raise Misused(f"--from {words!r} names no checkpoint: give step-10000, a path on the volume, or a run's name")
    return path


def successor(run: Run, *, resume_from: str, name: str = "") -> dict[str, Any]:
    """The manifest of the new run."""
    spec = dict(run.spec)
    spec.pop("suspend", None)
    storage = dict(spec.get("storage") or {})
    storage["checkpoints"] = {**(storage.get("checkpoints") or {}), "claimName": run.checkpoints_claim}
    spec["storage"] = storage
    checkpoints = {k: v for k, v in (spec.get("checkpoints") or {}).items() if k != "resumeFrom"}
    if resume_from:
        checkpoints["resumeFrom"] = resume_from
    if checkpoints or "checkpoints" in spec:
        spec["checkpoints"] = checkpoints
    metadata: dict[str, Any] = {"name": name, "namespace": run.namespace}
    if labels := run.metadata.get("labels"):
        metadata["labels"] = dict(labels)
    if annotations := _handed_on(run.metadata.get("annotations") or {}):
        metadata["annotations"] = annotations
    return {"apiVersion": run.raw.get("apiVersion"), "kind": run.raw.get("kind"), "metadata": metadata, "spec": spec}


def create_successor(runs: Runs, run: Run, *, resume_from: str, name: str = "", dry_run: bool = False) -> Run:
    """Create it, under `name` or the next free one."""
    manifest = successor(run, resume_from=resume_from)
    for number in range(2, TRIES + 2):
        manifest["metadata"]["name"] = name or numbered(run.name, number)
        try:
            return runs.create(manifest, dry_run=dry_run)
        except Rejected as error:
            if error.reason != "AlreadyExists" or name:
                raise
    raise Misused(f"{numbered(run.name, 2)} and the {TRIES - 1} names after it are taken: give --name")


def numbered(name: str, number: int) -> str:
    """`runbook-2` for `runbook`, `runbook-3` for `runbook-2`."""
    found = re.fullmatch(r"(.*)-(\d{1,3})", name)
    base, number = (found[1], int(found[2]) + number - 1) if found else (name, number)
    ending = f"-{number}"
    return base[: NAME_LIMIT - len(ending)].rstrip("-") + ending


def _handed_on(annotations: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in annotations.items() if k != CANCEL_ANNOTATION and not k.startswith(NOT_HANDED_ON)}
