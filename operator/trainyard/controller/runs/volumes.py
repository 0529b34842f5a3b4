"""The claims of a pod that no node takes: which one is not bound and why, and where the volumes of the others lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import EVENTS, PVCS
from trainyard.controller.manifests.storage import ClaimUse
from trainyard.controller.runs.wordings import Cause, causes

SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""On a claim: the node for which its volume was made."""
CLAIM = ".claimName"


@dataclass(frozen=True)
class Unbound:
    """A claim that has no volume. `lasting`: nothing will change without somebody's help."""

    message: str
    lasting: bool = False


@dataclass(frozen=True)
class Volumes:
    """What is known of the claims of one pod."""

    unbound: Unbound | None = None
    nodes: tuple[tuple[str, str], ...] = ()
    """Claims with the node that their volume was made for."""


NO_VOLUMES = Volumes()


async def look(cluster: Cluster, namespace: str, uses: Iterable[ClaimUse], *, said: str) -> Volumes:
    """`said` is the scheduler's sentence: a claim that merely waits for a node to be chosen is no reason by itself."""
    unbound, nodes = None, []
    for use in uses:
        claim = await cluster.get(PVCS, namespace, use.name)
        if claim is None:
            continue
        if claim.get("status", {}).get("phase") == "Bound":
            if node := (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE):
                nodes.append((use.name, str(node)))
            continue
        complaint = await _complaint(cluster, namespace, claim)
        if unbound is None and (complaint or Cause.CLAIM_UNBOUND in causes(said)):
            unbound = why_unbound(use, claim, complaint)
    return Volumes(unbound, tuple(nodes))


def why_unbound(use: ClaimUse, claim: Mapping[str, Any], complaint: str) -> Unbound:
    """In words that name the claim and its class."""
    asked = claim.get("spec", {}).get("storageClassName")
    told = f"claim {use.name} is not bound"
    told += f" (storageClassName {asked})" if asked else " (no storageClassName)"
    told += f": {complaint}" if complaint else ""
    field = f"{use.field.removesuffix(CLAIM)}.storageClassName"
    if use.claim is None:
        return Unbound(f"{told}; {use.field} names it")
    if asked and "not found" in complaint:
        way_out = f"create StorageClass {asked}, or delete this run and name another class in {field}"
        return Unbound(f"{told}; {way_out}", lasting=True)
    if "no storage class is set" in complaint:
        way_out = f"delete this run and name a class in {field}, or make one the cluster's default"
        return Unbound(f"{told}; {way_out}", lasting=True)
    return Unbound(told)


async def _complaint(cluster: Cluster, namespace: str, claim: Mapping[str, Any]) -> str:
    uid = claim["metadata"]["uid"]
    found = await cluster.list(EVENTS, namespace, field_selector=f"involvedObject.uid={uid}", limit=50)
    bad = [e for e in found if e.get("type") == "Warning" or e.get("reason") == "FailedBinding"]
    newest = max(bad, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""), default={})
    return str(newest.get("message") or "").strip()
