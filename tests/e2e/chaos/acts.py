"""The faults: what is done to the operator, the API server, the nodes, and the objects of runs that are under way.

Each act picks its victim by chance, does its harm, undoes what a person or the machine would undo, and says what it did.
One that finds no victim says so with None, and is not counted.
"""

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.api.server import Answer
from tests.e2e import processes, runs
from tests.e2e.chaos.apiproxy import ApiProxy
from tests.e2e.chaos.operator_process import OperatorProcess
from tests.e2e.faults import driver
from tests.e2e.kube import Kube, Object
from tests.e2e.volumes import work_folder
from trainyard.api import names
from trainyard.controller.kube.resources import JOBS, PODS, SECRETS, TRAININGRUNS, Resource

NODES = ("forge", "arcanine")


@dataclass
class Stage:
    """Everything that an act may lay hands on."""

    kube: Kube
    namespace: str
    proxy: ApiProxy
    operator: OperatorProcess
    chance: random.Random
    folder: Path

    def live_pod(self) -> Object | None:
        """A pod of a run that works right now."""
        found = [
            p
            for p in self.kube.list(PODS, self.namespace, labels=names.RUN_LABEL)
            if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"]
        ]
        return self.chance.choice(found) if found else None

    def job(self, *, finished: bool) -> Object | None:
        """A Job of a run."""
        found = [
            j
            for j in self.kube.list(JOBS, self.namespace, labels=names.RUN_LABEL)
            if finished == bool(j["status"].get("completionTime") or j["status"].get("failed"))
            and "deletionTimestamp" not in j["metadata"]
        ]
        return self.chance.choice(found) if found else None

    def patch(self, resource: Resource, name: str, change: Object, *, subresource: str = "") -> Answer:
        """A merge patch that may be refused."""
        path = resource.path(self.namespace, name) + subresource
        return self.kube.server.request("PATCH", path, change, content_type="application/merge-patch+json")

    def pause(self, low: float, high: float) -> None:
        """As long as the fault lasts. Its length means nothing; that is the point of it."""
        time.sleep(self.chance.uniform(low, high))


def operator_killed(stage: Stage) -> str:
    stage.operator.kill()
    stage.pause(0, 4)
    stage.operator.start()
    stage.operator.until_ready()
    return "SIGKILL"


def operator_frozen(stage: Stage) -> str:
    """Neither dead nor alive: its Lease runs out, the receiver takes connections and answers nobody."""
    stage.operator.freeze(True)
    stage.pause(5, 25)
    stage.operator.freeze(False)
    return "SIGSTOP for some seconds"


def api_server_restarted(stage: Stage) -> str:
    driver("apiserver", "restart")
    return "SIGKILL"


def api_storm(stage: Stage) -> str:
    stage.proxy.storm = stage.chance.choice((0.1, 0.3, 0.7))
    stage.pause(5, 20)
    told = f"{stage.proxy.storm:.0%} of the requests answered 429, 500, 503 or not at all"
    stage.proxy.storm = 0.0
    return told


def watches_cut(stage: Stage) -> str:
    stage.proxy.cut_watches()
    return "all streams ended"


def clock_stepped(stage: Stage) -> str:
    seconds = stage.chance.choice((-600, -90, -5, 5, 90, 600))
    stage.operator.move_clock(seconds)
    stage.pause(5, 20)
    stage.operator.move_clock(0)
    return f"{seconds:+d} s and back"


def node_lost(stage: Stage) -> str:
    name = stage.chance.choice(NODES)
    driver("node", "stop", name)
    stage.pause(5, 70)
    driver("node", "start", name)
    return f"kubelet of {name} away"


def training_killed(stage: Stage) -> str | None:
    pod = stage.live_pod()
    if pod is None or not processes.kill(pod, names.TRAINER_CONTAINER):
        return None
    return str(pod["metadata"]["name"])


def pod_deleted(stage: Stage) -> str | None:
    pod = stage.live_pod()
    if pod is None:
        return None
    stage.kube.delete(PODS, stage.namespace, pod["metadata"]["name"])
    return str(pod["metadata"]["name"])


def job_deleted(stage: Stage) -> str | None:
    job = stage.job(finished=stage.chance.random() < 0.3)
    if job is None:
        return None
    stage.kube.delete(JOBS, stage.namespace, job["metadata"]["name"])
    return str(job["metadata"]["name"])


def job_suspended_by_hand(stage: Stage) -> str | None:
    job = stage.job(finished=False)
    if job is None or not stage.patch(JOBS, job["metadata"]["name"], {"spec": {"suspend": True}}).accepted:
        return None
    stage.pause(3, 15)
    stage.patch(JOBS, job["metadata"]["name"], {"spec": {"suspend": False}})
    return str(job["metadata"]["name"])


def job_label_removed(stage: Stage) -> str | None:
    """The label by which children are listed."""
    job = stage.job(finished=False)
    if job is None:
        return None
    change: Object = {"metadata": {"labels": {names.RUN_LABEL: None}}}
    return str(job["metadata"]["name"]) if stage.patch(JOBS, job["metadata"]["name"], change).accepted else None


def secret_deleted(stage: Stage) -> str | None:
    """The run's own, with its file and its token."""
    found = stage.kube.list(SECRETS, stage.namespace, labels=names.RUN_LABEL)
    if not found:
        return None
    name = stage.chance.choice(found)["metadata"]["name"]
    stage.kube.delete(SECRETS, stage.namespace, name)
    return str(name)


def status_overwritten(stage: Stage) -> str | None:
    """What somebody with kubectl and little patience writes; a run that has ended stays as it is."""
    found = [r for r in stage.kube.list(TRAININGRUNS, stage.namespace) if not runs.finished(r)]
    if not found:
        return None
    name = stage.chance.choice(found)["metadata"]["name"]
    change: Object = {"status": {"state": "Succeeded", "message": "done, I am sure", "trainerStatus": None}}
    return str(name) if stage.patch(TRAININGRUNS, name, change, subresource="/status").accepted else None


def run_touched(stage: Stage) -> str | None:
    found = stage.kube.list(TRAININGRUNS, stage.namespace)
    if not found:
        return None
    name = stage.chance.choice(found)["metadata"]["name"]
    value = str(stage.chance.random())
    stage.patch(TRAININGRUNS, name, {"metadata": {"annotations": {"example.org/touched": value}}})
    return str(name)


def volume_refuses_writes(stage: Stage) -> str | None:
    """The run's folder takes no new file, for attempts that are under way and for those that begin meanwhile."""
    found = [r for r in stage.kube.list(TRAININGRUNS, stage.namespace) if runs.state(r) == "Training"]
    if not found:
        return None
    run = stage.chance.choice(found)
    place = str(work_folder(stage.kube, run))
    subprocess.run(["chattr", "+i", place], check=True, capture_output=True)
    try:
        stage.pause(5, 25)
    finally:
        subprocess.run(["chattr", "-i", place], check=True, capture_output=True)
    return str(run["metadata"]["name"])


Act = Callable[[Stage], str | None]
ACTS: dict[Act, int] = {
    operator_killed: 6,
    operator_frozen: 3,
    api_server_restarted: 2,
    api_storm: 5,
    watches_cut: 3,
    clock_stepped: 5,
    node_lost: 2,
    training_killed: 8,
    pod_deleted: 6,
    job_deleted: 5,
    job_suspended_by_hand: 4,
    job_label_removed: 4,
    secret_deleted: 3,
    status_overwritten: 3,
    run_touched: 4,
    volume_refuses_writes: 3,
}
"""How often each comes, one among the others."""
