"""What a plan may ask for: changes of a run's children, as values."""

from dataclasses import dataclass
from typing import Any, Literal

from trainyard.controller.kube.resources import Resource


@dataclass(frozen=True)
class Create:
    """Make an object; one of the same name means that the picture was incomplete."""

    resource: Resource
    body: dict[str, Any]


@dataclass(frozen=True)
class Patch:
    """Merge-patch an object that somebody else may change too; the patch carries the resourceVersion."""

    resource: Resource
    name: str
    body: dict[str, Any]
    namespace: str = ""
    """That of the run if empty."""
    export: str = ""
    """The export that asks for it: what is refused then fails that export, and nothing else."""


@dataclass(frozen=True)
class Delete:
    """Delete an object, if it is still the one that was seen."""

    resource: Resource
    name: str
    uid: str
    propagation: Literal["Background", "Foreground"]
    grace_seconds: int | None = None
    """Of a pod, where it is not to have its own."""


Action = Create | Patch | Delete
