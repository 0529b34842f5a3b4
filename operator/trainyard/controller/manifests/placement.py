"""Placement: the node affinity and tolerations behind `spec.placement`."""

import copy
from typing import Any

from trainyard.api.run.pod import Placement, Resources
from trainyard.controller.manifests.metadata import Object

HOSTNAME_LABEL = "kubernetes.io/hostname"
NATIVE_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def extended_resources(resources: Resources) -> list[str]:
    """Names of GPUs and other devices that are asked for."""
    names = {**resources.requests, **resources.limits}
    return sorted(n for n in names if n not in NATIVE_RESOURCES and not n.startswith("hugepages-"))


def tolerations(placement: Placement, training: Resources) -> list[Object]:
    """The user's tolerations, those of `nodeNames`, and the customary one of GPU nodes.

    GPU nodes are commonly tainted with the name of their resource. Every step of a run tolerates that taint, also those
    without a GPU: they share volumes with the training step, which may exist on its node only.
    """
    result = [t.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True) for t in placement.tolerations]
    result += [
        {"key": "dedicated", "operator": "Equal", "value": name, "effect": "NoSchedule"}
        for name in placement.node_names
    ]
    result += [
        {"key": resource, "operator": "Exists", "effect": "NoSchedule"} for resource in extended_resources(training)
    ]
    unique: list[Object] = []
    for toleration in result:
        if toleration not in unique:
            unique.append(toleration)
    return unique


def affinity(placement: Placement) -> dict[str, Any] | None:
    """The user's affinity, narrowed to `nodeNames`.

    Node selector terms are alternatives, so the host names go into each of them.
    """
    if not placement.node_names:
        return placement.affinity
    hosts = {"key": HOSTNAME_LABEL, "operator": "In", "values": list(placement.node_names)}
    merged: dict[str, Any] = copy.deepcopy(placement.affinity or {})
    required = merged.setdefault("nodeAffinity", {}).setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*term.get("matchExpressions", []), hosts]} for term in terms
    ]
    return merged


def placement_fields(placement: Placement, training: Resources) -> Object:
    """The pod spec's fields that decide on the node."""
    fields: Object = {
        "nodeSelector": dict(placement.node_selector),
        "tolerations": tolerations(placement, training),
        "affinity": affinity(placement),
        "priorityClassName": placement.priority_class_name,
        "runtimeClassName": placement.runtime_class_name,
        "schedulerName": placement.scheduler_name,
    }
    return {name: value for name, value in fields.items() if value}
