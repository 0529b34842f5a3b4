"""Claims: which ones a run uses, which of them are made, and how long they live.

A claim of one's own or a named one that Trainyard made is owned by every run that uses it, so the garbage collector
deletes it with the last of them. `retain: true` on any of these runs marks the claim and takes all owners away. A claim
that somebody else made is only used, never owned and never deleted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.api.names import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    RETAIN_ANNOTATION,
    cache_claim_name,
    checkpoints_claim_name,
)
from trainyard.api.references import named
from trainyard.api.run.pod import Claim
from trainyard.controller.manifests.metadata import Object, RunRef, child_labels, owner_reference

DEFAULT_SIZE = "10Gi"


@dataclass(frozen=True)
class ClaimUse:
    """A claim and why the run needs it."""

    name: str
    field: str
    """The spec field that names it, for messages."""
    claim: Claim | None
    """How to make it; None for one that must exist."""

    @property
    def can_be_made(self) -> bool:
        """A named claim without a size is meant to exist already."""
        return self.claim is not None and (self.claim.claim_name is None or self.claim.size is not None)


def source_claims(run: RunRef, step: str | None = None) -> dict[str, str]:
    """Claims that the run reads from, or one step of it, with the field that names each."""
    return named(run.spec, "PersistentVolumeClaim", step=step)


def claims(run: RunRef) -> Iterator[ClaimUse]:
    """Every claim that a pod of the run mounts."""
    storage = run.spec.storage
    yield ClaimUse(checkpoints_name(run), "spec.storage.checkpoints.claimName", storage.checkpoints)
    if storage.cache is not None:
        yield ClaimUse(cache_name(run) or "", "spec.storage.cache.claimName", storage.cache)
    for name, field in source_claims(run).items():
        yield ClaimUse(name, field, None)


def checkpoints_name(run: RunRef) -> str:
    """Name of the checkpoint claim."""
    return run.spec.storage.checkpoints.claim_name or checkpoints_claim_name(run.name)


def cache_name(run: RunRef) -> str | None:
    """Name of the cache claim, if the run has one."""
    cache = run.spec.storage.cache
    return None if cache is None else cache.claim_name or cache_claim_name(run.name)


def claim_manifest(run: RunRef, use: ClaimUse) -> Object:
    """The claim as it is made. Raises ValueError for one that must exist already."""
    if use.claim is None:
        raise ValueError(f"{use.name} is not a claim that the run may make")
    spec: Object = {
        "accessModes": list(use.claim.access_modes),
        "resources": {"requests": {"storage": str(use.claim.size or DEFAULT_SIZE)}},
    }
    if use.claim.storage_class_name is not None:
        spec["storageClassName"] = use.claim.storage_class_name
    labels = child_labels(run) if use.claim.claim_name is None else {MANAGED_BY_LABEL: MANAGED_BY}
    metadata: Object = {"name": use.name, "namespace": run.namespace, "labels": labels}
    if use.claim.retain:
        metadata["annotations"] = {RETAIN_ANNOTATION: "true"}
    else:
        metadata["ownerReferences"] = [owner_reference(run, controller=False)]
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def is_of_somebody_else(use: ClaimUse, existing: Mapping[str, Any] | None) -> bool:
    """Whether a claim stands under the name of one that the run makes for itself, and nobody here has made it."""
    if existing is None or use.claim is None or use.claim.claim_name is not None:
        return False
    return (existing["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) != MANAGED_BY


def ownership_patch(run: RunRef, use: ClaimUse, existing: Object) -> Object | None:
    """The change that brings an existing claim's owners in line with `retain`; None where nothing is to change.

    The patch carries the resourceVersion, because owner references are a list and two runs may change it at once.
    """
    metadata = existing["metadata"]
    if use.claim is None or metadata.get("labels", {}).get(MANAGED_BY_LABEL) != MANAGED_BY:
        return None
    owners = metadata.get("ownerReferences", [])
    retained = metadata.get("annotations", {}).get(RETAIN_ANNOTATION) == "true"
    version = metadata.get("resourceVersion")
    if use.claim.retain:
        if retained and not owners:
            return None
        change: Object = {"annotations": {RETAIN_ANNOTATION: "true"}, "ownerReferences": []}
    elif retained and use.claim.claim_name is not None:
        return None  # another run that shares it asked to keep it
    elif retained:
        change = {"annotations": {RETAIN_ANNOTATION: None}, "ownerReferences": [owner_reference(run, controller=False)]}
    elif all(o.get("uid") != run.uid for o in owners):
        change = {"ownerReferences": [*owners, owner_reference(run, controller=False)]}
    else:
        return None
    return {"metadata": {"resourceVersion": version, **change}}
