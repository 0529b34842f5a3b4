"""The installed operator: its pod, its sudden death, its return.

Two kinds of death are used. The pod is left to the kubelet, which starts the container again, but makes it wait ever
longer after each crash. Or the pod object is deleted too, as with a lost node: a new pod, on a clean slate, has to take
the Lease over from a dead holder.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.e2e import processes
from tests.e2e.kube import DEPLOYMENTS, Kube, Object, TimedOut
from trainyard.controller.kube.resources import PODS

NAMESPACE = "trainyard-system"
NAME = "trainyard"
CONTAINER = "operator"
LABELS = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/name=trainyard"


def pod(kube: Kube) -> Object | None:
    """The operator's newest pod that is not on its way out."""
    found = [
        p
        for p in kube.list(PODS, NAMESPACE, labels=LABELS)
        if "deletionTimestamp" not in p["metadata"] and p["spec"]["containers"][0]["name"] == CONTAINER
    ]
    return max(found, key=lambda p: str(p["metadata"]["creationTimestamp"]), default=None)


def ready(found: Object | None) -> bool:
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def until_running(kube: Kube, *, after: str, seconds: float = 120) -> Object:
    """The operator's pod once a process exists that is not the one `after`, which has just been killed."""

    def other(found: Object | None) -> bool:
        return found is not None and processes.container_id(found, CONTAINER) not in (None, after)

    return _until(kube, other, seconds=seconds, what="a running operator")


def until_ready(kube: Kube, *, seconds: float = 180) -> Object:
    """The operator's pod once it works: it holds the Lease and its watches stand."""
    return _until(kube, ready, seconds=seconds, what="a ready operator")


def kill(kube: Kube, *, replace: bool) -> str | None:
    """SIGKILL to the operator's process. The container's id, or None where none runs.

    The kubelet will start it again; with `replace` the pod is forgotten at once, so that the Deployment makes another.
    """
    found = pod(kube)
    identity = processes.container_id(found, CONTAINER) if found else None
    if found is None or identity is None or not processes.kill(found, CONTAINER):
        return None
    if replace:
        kube.delete(PODS, NAMESPACE, found["metadata"]["name"], grace=0)
    return identity


@contextmanager
def away(kube: Kube) -> Iterator[None]:
    """Inside, there is no operator; afterwards it is ready again."""
    kube.merge(DEPLOYMENTS, NAMESPACE, NAME, {"spec": {"replicas": 0}})
    try:
        for found in kube.list(PODS, NAMESPACE, labels=LABELS):
            kube.wait_gone(PODS, NAMESPACE, found["metadata"]["name"], seconds=60)
        yield
    finally:
        kube.merge(DEPLOYMENTS, NAMESPACE, NAME, {"spec": {"replicas": 1}})
        until_ready(kube)


def _until(kube: Kube, holds: Callable[[Object | None], bool], *, seconds: float, what: str) -> Object:
    for change in kube.watch(PODS, NAMESPACE, seconds=seconds, labels=LABELS):
        gone = change.type == "DELETED" or "deletionTimestamp" in change.object["metadata"]
        if not gone and holds(change.object):
            return change.object
    raise TimedOut(f"{what} did not come in {seconds:.0f} s")
