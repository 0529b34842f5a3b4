"""What the scheduler says of a pod that it cannot place, and what it means. Sentences change between versions of Kubernetes; what
follows from them must not, so each cause has all the wordings that are known. `tests/unit/controller/runs/test_wordings.py`
has a whole sentence for each.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from trainyard.api.run.pod import Placement


class Cause(Enum):
    """Why some node is not taken."""

    TAINT = auto()
    VOLUME_ELSEWHERE = auto()
    CLAIM_UNBOUND = auto()
    NOT_SELECTED = auto()
    FULL = auto()


@dataclass(frozen=True)
class Wording:
    """A part of a sentence, and the versions that have it."""

    cause: Cause
    pattern: str
    versions: str


WORDINGS = (
    Wording(Cause.TAINT, r"untolerated taint", "1.23 and newer"),
    Wording(Cause.TAINT, r"had taint \{.*?\}, that the pod didn't tolerate", "1.22 and older"),
    Wording(Cause.TAINT, r"had taints that the pod didn't tolerate", "1.35"),
    Wording(Cause.VOLUME_ELSEWHERE, r"volume node affinity conflict", "before 1.35"),
    Wording(Cause.VOLUME_ELSEWHERE, r"didn't match PersistentVolume's node affinity", "1.35"),
    Wording(Cause.VOLUME_ELSEWHERE, r"no available volume zone", "1.35 and older"),
    Wording(Cause.CLAIM_UNBOUND, r"unbound immediate PersistentVolumeClaims", "1.35 and older"),
    Wording(Cause.CLAIM_UNBOUND, r"didn't find available persistent volumes to bind", "1.35 and older"),
    Wording(Cause.CLAIM_UNBOUND, r"bound to non-existent pv", "1.35 and older"),
    Wording(Cause.CLAIM_UNBOUND, r'persistentvolumeclaim "[^"]*" not found', "1.35 and older"),
    Wording(Cause.NOT_SELECTED, r"didn't match Pod's node affinity/selector", "1.22 and newer"),
    Wording(Cause.NOT_SELECTED, r"didn't match (?:node selector|pod affinity)", "1.21 and older"),
    Wording(Cause.FULL, r"Insufficient [a-z]", "all"),
)


NAME_IT = "name its node in spec.placement.nodeNames"


def causes(message: str) -> frozenset[Cause]:
    """All that the scheduler's sentence names; nodes differ."""
    return frozenset(wording.cause for wording in WORDINGS if re.search(wording.pattern, message))


def hint(message: str, placement: Placement, *, volumes: tuple[tuple[str, str], ...] = ()) -> str:
    """The way out, with what stands before it; empty where there is none that has not been taken. `volumes`: claims of the run
    whose volume is known to have been made for a node, with that node."""
    found, named = causes(message), placement.node_names
    if Cause.VOLUME_ELSEWHERE in found:
        if elsewhere := next(((claim, node) for claim, node in volumes if named and node not in named), None):
            claim, node = elsewhere
            return (
                f"; the volume of claim {claim} lies on {node}, spec.placement.nodeNames asks for {', '.join(named)}: name "
                f"{node} there, or use a StorageClass whose volumes can move"
            )
        if volumes and not named:
            claim, node = volumes[0]
            return f"; the volume of claim {claim} lies on {node}: name {node} in spec.placement.nodeNames"
        where = f"not on {', '.join(named)}, which spec.placement.nodeNames asks for" if named else "on one node only"
        return f"; a volume of the run exists {where}: {NAME_IT}, or use a StorageClass whose volumes can move"
    if Cause.TAINT in found and not named:
        also = " for that taint too" if placement.tolerations else ""
        return f"; name the node in spec.placement.nodeNames, or add the toleration{also} to spec.placement.tolerations"
    if Cause.TAINT in found and Cause.FULL not in found:
        return f"; if that is a taint of {', '.join(named)}, add the toleration to spec.placement.tolerations"
    return ""
