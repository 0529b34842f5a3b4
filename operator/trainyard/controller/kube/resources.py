"""The kinds of objects that the operator reads or writes, and where the API server keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.api import GROUP, VERSION


@dataclass(frozen=True)
class Resource:
    """One resource type of the API server. `plural` is its name in URLs and in metrics."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As it stands in a manifest: `v1`, `batch/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of a collection (over all namespaces without `namespace`) or of one object."""
        if name is not None and self.namespaced and not namespace:
            raise ValueError(f"{self.plural} {name!r} needs a namespace")
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


TRAININGRUNS = Resource(GROUP, VERSION, "trainingruns", "TrainingRun")
TRAININGSCHEDULES = Resource(GROUP, VERSION, "trainingschedules", "TrainingSchedule")
TRAININGSWEEPS = Resource(GROUP, VERSION, "trainingsweeps", "TrainingSweep")
JOBS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
PVCS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
SERVICES = Resource("", "v1", "services", "Service")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS = Resource("", "v1", "events", "Event")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
INFERENCESERVICES = Resource("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)


def identified(raw: Mapping[str, Any]) -> dict[str, Any]:
    """As much of an object as a write of its status needs; the API server keeps the spec that it has."""
    metadata = {k: raw["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion")}
    return {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": metadata}
