"""Whether anybody listens to the queue that a run names: its Jobs are made suspended, and only Kueue lets them go."""

from trainyard.api import names
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.errors import Forbidden
from trainyard.controller.kube.resources import Resource
from trainyard.controller.manifests.metadata import RunRef

KUEUE = "kueue.x-k8s.io"
VERSIONS = ("v1beta2", "v1beta1")


async def why_nobody_listens(cluster: Cluster, run: RunRef) -> str:
    """A sentence; empty where somebody does, or nobody may look."""
    queue = run.labels[names.QUEUE_LABEL]
    without = f"to train without a queue, delete the run and apply it without the label {names.QUEUE_LABEL}"
    for version in VERSIONS:
        queues = Resource(KUEUE, version, "localqueues", "LocalQueue")
        try:
            if not await cluster.serves(queues):
                continue
            if await cluster.get(queues, run.namespace, queue) is not None:
                return ""
        except Forbidden:
            return ""
        return f"there is no LocalQueue {queue} in namespace {run.namespace}: create it, or correct the name; {without}"
    return f"Kueue is not installed, so nobody will: install it; {without}"
