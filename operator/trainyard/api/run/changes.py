"""What of a TrainingRun may change, and when: the rules over the whole object.

What identifies a training (model, datasets, phases, method) is fixed from the moment it has started; what decides how it
fits the hardware (batch, resources, placement) can change while it is suspended; everything else at any time. Only the API
server sees both versions of an object, so these rules have no Python half. They read metadata and status too, so they
stand at the root of the schema.
"""

from collections.abc import Sequence

from trainyard.api.base import Rule
from trainyard.api.run.trainingrun import RUN_NAME_LIMIT

_STATUS_WRITE = "(has(self.status) && has(oldSelf.status) && self.status != oldSelf.status)"
"""CEL: this write is one of the status, so that the spec cannot have changed: the API server lets no write change both.

It stands first in each rule about changes, because the API server evaluates them all at each write of a status, and
comparing the spec is by far the dearest part of such a write.
"""
_STARTED = "has(oldSelf.status) && has(oldSelf.status.startTime)"
_PAUSED = "(has(oldSelf.spec.suspend) && oldSelf.spec.suspend)"


_SURE = ("spec", "spec.training")
"""What is there wherever something in it is asked for: the rules about fields of spec.training see to that themselves."""


def _there(root: str, path: str) -> str:
    """CEL: the path leads to something. Of what lies in an object that is absent, `has` alone is an error."""
    parts = path.split(".")
    prefixes = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return " && ".join(f"has({root}.{prefix})" for prefix in prefixes if prefix == path or prefix not in _SURE)


def _same(path: str) -> str:
    """CEL: an optional object has not changed, whether it is there or not."""
    now, before = _there("self", path), _there("oldSelf", path)
    absent = f"!{before}" if " && " not in before else f"!({before})"
    return f"({now} ? {before} && self.{path} == oldSelf.{path} : {absent})"


def _unchanged(paths: Sequence[str], *, unless: str, told: str) -> Rule:
    """None of the paths has changed, unless the condition holds; the message begins with the first that has."""
    first = " : ".join(f"!{_same(path)} ? '{path}'" for path in paths[:-1]) + f" : '{paths[-1]}'"
    return Rule(
        f"{_STATUS_WRITE} || {unless} || (" + " && ".join(map(_same, paths)) + ")",
        f"these fields {told}",
        message_cel=f"({first}) + ' {told}'",
    )


TRAINING_IDENTITY = (
    "method",
    "maxLength",
    "packing",
    "seed",
    "precision",
    "optim",
    "lrSchedulerType",
    "trm",
    "teacher",
)
"""Fields of spec.training that no suspension makes changeable: a checkpoint would not continue under other ones."""

ROOT_RULES: tuple[Rule, ...] = (
    Rule(
        f"self.metadata.name.size() <= {RUN_NAME_LIMIT} && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name must be at most {RUN_NAME_LIMIT} characters of a-z, 0-9 and -, because Jobs and labels are named "
        "after it",
    ),
    _unchanged(
        [
            "spec.model",
            "spec.datasets",
            "spec.datasetUpload",
            "spec.phases",
            "spec.runPhases",
            "spec.command",
            "spec.args",
            "spec.mode",
            "spec.storage.checkpoints.claimName",
            "spec.storage.workspace",
        ],
        unless=f"!({_STARTED})",
        told="is fixed once the run has started: create a new run, or delete this one and apply it again",
    ),
    _unchanged(
        [f"spec.training.{field}" for field in TRAINING_IDENTITY],
        unless=f"!({_STARTED}) || !has(self.spec.training) || !has(oldSelf.spec.training)",
        told="is fixed once the run has started: a checkpoint would not continue under another value; create a new run",
    ),
    _unchanged(
        [
            "spec.training",
            "spec.image",
            "spec.numNodes",
            "spec.numProcPerNode",
            "spec.resources",
            "spec.stepResources",
            "spec.placement",
            "spec.podTemplate",
        ],
        unless=f"!({_STARTED}) || {_PAUSED}",
        told="can change only while the run is suspended: set spec.suspend to true first, then change it",
    ),
)
