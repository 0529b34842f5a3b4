"""The TrainingRun of one trial, ready to be created."""

import json
from typing import Any

from trainyard.api import API_VERSION
from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL
from trainyard.api.sweep.children import SweepRef, trial_name, trial_spec
from trainyard.api.sweep.space import Assignments
from trainyard.api.sweep.trainingsweep import ASSIGNMENTS_ANNOTATION, SWEEP_LABEL, SWEEP_UID_LABEL, TRIAL_LABEL


def build_child(sweep: SweepRef, number: int, assignments: Assignments) -> dict[str, Any]:
    """The TrainingRun. Raises ValueError where a parameter leads nowhere."""
    template = sweep.spec.template.metadata
    owner = {
        "apiVersion": API_VERSION,
        "kind": "TrainingSweep",
        "name": sweep.name,
        "uid": sweep.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {
            "name": trial_name(sweep.name, number),
            "namespace": sweep.namespace,
            "labels": {**template.labels, **labels(sweep, number)},
            "annotations": {**template.annotations, ASSIGNMENTS_ANNOTATION: json.dumps(assignments)},
            "ownerReferences": [owner],
        },
        "spec": trial_spec(sweep, assignments),
    }


def labels(sweep: SweepRef, number: int) -> dict[str, str]:
    """By which a trial's run is found."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        SWEEP_LABEL: sweep.name,
        SWEEP_UID_LABEL: sweep.uid,
        TRIAL_LABEL: str(number),
    }
