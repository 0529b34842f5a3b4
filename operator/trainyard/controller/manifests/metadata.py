"""Labels, owner references and names that all children of a run carry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.api import API_VERSION
from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL, RUN_LABEL, RUN_UID_LABEL
from trainyard.api.run.trainingrun import TrainingRunSpec

Object = dict[str, Any]


@dataclass(frozen=True)
class RunRef:
    """The run whose children are built."""

    name: str
    namespace: str
    uid: str
    spec: TrainingRunSpec
    raw_spec: Mapping[str, Any]
    """The spec as the API server returned it: what the trainer gets to read."""
    labels: Mapping[str, str]
    created: str = ""
    """creationTimestamp: where windows of data end, unless a schedule says otherwise."""


@dataclass(frozen=True)
class Defaults:
    """What the operator's settings contribute to the children."""

    trainer_image: str
    receiver_url: str = ""
    """Base URL of the receiver as pods reach it; empty means that no progress is pushed."""
    image_pull_policy: str = "IfNotPresent"


def child_labels(run: RunRef) -> dict[str, str]:
    """Labels by which the children are found again."""
    return {MANAGED_BY_LABEL: MANAGED_BY, RUN_LABEL: run.name, RUN_UID_LABEL: run.uid}


def owner_reference(run: RunRef, *, controller: bool = True) -> Object:
    """Makes the garbage collector delete the child with the run.

    A claim that several runs share has several owners, of which none is the controller.
    """
    reference: Object = {"apiVersion": API_VERSION, "kind": "TrainingRun", "name": run.name, "uid": run.uid}
    return reference | ({"controller": True, "blockOwnerDeletion": True} if controller else {})
