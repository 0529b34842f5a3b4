"""Commands on a run's volume: in its own pod while that works, else in a short-lived one with the same claim.

The short-lived pod asks for next to nothing, tolerates every taint (it has to go where the volume is), is owned by the run,
ends by itself if nobody ends it, and mounts the volume read-only unless it is to be written to.
"""

import argparse
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trainyard.api import GROUP
from trainyard.api.names import CHECKPOINTS_MOUNT, MANAGED_BY, MANAGED_BY_LABEL, TRAINER_CONTAINER, work_dir
from trainyard.cli.cluster import kubectl_words
from trainyard.cli.exits import Missing, Misused, Refused
from trainyard.cli.kubectl import program, tidy
from trainyard.client import ClientError, Run, Runs
from trainyard.client.logs import pods_of

INSPECTS_LABEL = f"{GROUP}/inspects"
LIFE_SECONDS = 6 * 3600
START_SECONDS = 180
POLL_SECONDS = 0.5
USER_ID = 1000


@dataclass(frozen=True)
class Place:
    """A container that has the run's volume."""

    pod: str
    own: bool
    """Whether it is a pod of the run."""
    words: tuple[str, ...]
    """How kubectl is told to run something there."""

    def run(self, *command: str) -> str:
        """What the command prints. Raises Refused where it fails."""
        done = subprocess.run([*self.words, "--", *command], capture_output=True, text=True)
        if done.returncode != 0:
            raise Refused(f"{command[0]} in pod {self.pod} has failed: {tidy(done.stderr) or done.returncode}")
        return done.stdout

    def open(self, *command: str) -> "subprocess.Popen[bytes]":
        """The command, with what it prints as a stream."""
        return subprocess.Popen([*self.words, "--", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def add_inspection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image", default="", metavar="IMAGE", help="Of the short-lived pod. Default: that of the run."
    )
    parser.add_argument("--new-pod", action="store_true", help="A short-lived pod also while a pod of the run works.")


def live_pod(runs: Runs, run: Run) -> dict[str, Any] | None:
    """The newest pod of the run whose container works."""
    pod: dict[str, Any]
    for pod in reversed(pods_of(runs.api, run)):
        running = any("running" in c.get("state", {}) for c in pod.get("status", {}).get("containerStatuses") or ())
        if running and not pod["metadata"].get("deletionTimestamp"):
            return pod
    return None


@contextmanager
def on_volume(runs: Runs, run: Run, options: argparse.Namespace, *, write: bool = False) -> Iterator[Place]:
    """A place with the run's volume. A pod that was made for it is deleted at the end, whatever happens."""
    kubectl = program()

    def words(pod: str) -> tuple[str, ...]:
        return (kubectl, "exec", *kubectl_words(options, namespace=run.namespace), pod, "-c", TRAINER_CONTAINER)

    pod = None if options.new_pod else live_pod(runs, run)
    if pod is not None:
        yield Place(pod["metadata"]["name"], True, words(pod["metadata"]["name"]))
        return
    claim = run.checkpoints_claim
    path = f"/api/v1/namespaces/{run.namespace}/persistentvolumeclaims/{claim}"
    try:
        runs.api.get(path)
    except ClientError as error:
        raise Missing(f"{run.name} has no volume to look at: {error}") from error
    manifest = inspection_pod(run, image=options.image or _image(runs, run), write=write)
    made = runs.api.post(f"/api/v1/namespaces/{run.namespace}/pods", manifest)["metadata"]["name"]
    try:
        _await(runs, run.namespace, made)
        yield Place(made, False, words(made))
    finally:
        runs.api.delete(f"/api/v1/namespaces/{run.namespace}/pods/{made}", gracePeriodSeconds="1")


def inspection_pod(run: Run, *, image: str, write: bool) -> dict[str, Any]:
    """The manifest of the short-lived pod."""
    template = run.spec.get("podTemplate") or {}
    container = {
        "name": TRAINER_CONTAINER,
        "image": image,
        "imagePullPolicy": template.get("imagePullPolicy") or "IfNotPresent",
        "command": ["sh", "-c", f"trap 'exit 0' TERM; sleep {LIFE_SECONDS} & wait"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "volumeMounts": [
            {"name": "checkpoints", "mountPath": CHECKPOINTS_MOUNT, "readOnly": not write},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            **(template.get("containerSecurityContext") or {}),
        },
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": LIFE_SECONDS,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
            **(template.get("securityContext") or {}),
        },
        "containers": [container],
        "volumes": [
            {"name": "checkpoints", "persistentVolumeClaim": {"claimName": run.checkpoints_claim}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }
    if template.get("imagePullSecrets"):
        spec["imagePullSecrets"] = template["imagePullSecrets"]
    owner = {"apiVersion": run.raw.get("apiVersion"), "kind": "TrainingRun", "name": run.name, "uid": run.uid}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{run.name}-inspect-",
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, INSPECTS_LABEL: run.name},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def folder_of(run: Run) -> str:
    """The run's folder in any of its pods."""
    return work_dir(run.name, run.uid)


def _image(runs: Runs, run: Run) -> str:
    """The image that the run's pods have, or had."""
    selector = f"{GROUP}/run={run.name}"
    for job in runs.api.items(f"/apis/batch/v1/namespaces/{run.namespace}/jobs", labelSelector=selector):
        containers: Sequence[Mapping[str, Any]] = job["spec"]["template"]["spec"]["containers"]
        if image := next((c["image"] for c in containers if c["name"] == TRAINER_CONTAINER), None):
            return str(image)
    if image := run.spec.get("image"):
        return str(image)
    raise Misused(f"the Jobs of {run.name} are gone, and with them its image: give --image, any with a shell does")


def _await(runs: Runs, namespace: str, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        status = runs.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}").get("status") or {}
        if status.get("phase") == "Running":
            return
        why = _why_not(status)
        if status.get("phase") in ("Failed", "Succeeded") or time.monotonic() > deadline:
            raise Refused(f"the pod {name} for looking at the volume does not start: {why}")
        time.sleep(POLL_SECONDS)


def _why_not(status: Mapping[str, Any]) -> str:
    for container in status.get("containerStatuses") or ():
        if waiting := container.get("state", {}).get("waiting"):
            return " ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    for condition in status.get("conditions") or ():
        if condition.get("status") == "False" and condition.get("message"):
            return str(condition["message"])
    return str(status.get("message") or status.get("phase") or "nothing is known")
