"""Things that go wrong in the cluster on purpose, each with the runbook's entry for it.

A fault is planted, so its name is known and nobody has to judge it: a pod asks for a node that is not there, a Secret that
nobody made, a probe that cannot succeed. What the cluster itself then says about it, in events, is the data. Most of the
faults stop a pod before a container is started, so a hundred of them cost little.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.kube import EVENTS, QUOTAS, Kube, Object, TimedOut, namespace_of
from trainyard.controller.kube.resources import JOBS, PODS

IMAGE = "localhost:5001/trainyard/operator:dev"
_NAMES = (
    "shop mail-relay wiki photo-archive build-farm ledger search queue chat backup login billing proxy reports scheduler "
    "thumbnails catalogue inventory calendar notifier gateway crawler translator forum player recorder sensor-hub dashboard "
    "vault printer"
)
SERVICES = tuple(_NAMES.split())
SLEEP = ["python3", "-c", "import signal; signal.pause()"]


@dataclass(frozen=True)
class Fault:
    """One entry of the runbook, and how to bring it about.

    `plant` changes the spec of a pod whose only container sleeps; it gets a number, so that no two are quite the same.
    `told_by` are the reasons of the events that tell of this fault, and `words` stand in their messages.
    """

    heading: str
    diagnosis: str
    command: str
    plant: Callable[[Object, int], None]
    told_by: frozenset[str]
    words: str = ""
    by_job: bool = False
    """The pod is refused, and the event is its Job's."""

    @property
    def entry(self) -> str:
        """The fault in the runbook's Markdown."""
        symptom = f"an event with reason {' or '.join(sorted(self.told_by))}"
        return f"## {self.heading}\n\n**Symptom:** {symptom}\n\n**Diagnosis:** {self.diagnosis}\n\n```sh\n{self.command}\n```\n"


def _name(number: int) -> str:
    return SERVICES[number * 7 % len(SERVICES)]


def _container(**fields: Any) -> Callable[[Object, int], None]:
    """Set fields of the container; a function gets the number."""

    def plant(spec: Object, number: int) -> None:
        for name, value in fields.items():
            spec["containers"][0][name] = value(number) if callable(value) else value

    return plant


def _pod(**fields: Any) -> Callable[[Object, int], None]:
    def plant(spec: Object, number: int) -> None:
        for name, value in fields.items():
            spec[name] = value(number) if callable(value) else value

    return plant


def _volume(source: Callable[[int], Object]) -> Callable[[Object, int], None]:
    def plant(spec: Object, number: int) -> None:
        spec["volumes"] = [{"name": "data", **source(number)}]
        spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]

    return plant


def _requests(**amounts: Callable[[int], str]) -> Callable[[Object, int], None]:
    def asked(number: int) -> Object:
        found = {name.replace("gpu", "nvidia.com/gpu"): amount(number) for name, amount in amounts.items()}
        return {"requests": {"cpu": "1m", **found}, "limits": found}

    return _container(resources=asked)


def _probe(number: int) -> Object:
    return {"tcpSocket": {"port": 8000 + number}, "periodSeconds": 2, "failureThreshold": 1}


def _fault(
    heading: str, told_by: str, plant: Callable[[Object, int], None], diagnosis: str, command: str, **more: Any
) -> Fault:
    return Fault(heading, diagnosis, command, plant, frozenset(told_by.split()), **more)


FAULTS = (
    _fault(
        "The image is not in the registry",
        "Failed BackOff",
        _container(image=lambda n: f"localhost:5001/{_name(n)}/server:v1.{n}"),
        "the name or the tag of the image is wrong, or it was never pushed",
        "kubectl describe pod <pod>",
        words="mage",
    ),
    _fault(
        "The image's name is malformed",
        "InspectFailed Failed",
        _container(image=lambda n: f"localhost:5001/{_name(n).title()}/Server:v{n}"),
        "names of images are written in small letters",
        "kubectl get pod <pod> -o jsonpath='{.spec.containers[*].image}'",
    ),
    _fault(
        "No node has enough processors",
        "FailedScheduling",
        _requests(cpu=lambda n: str(64 + n)),
        "the request is larger than what any node has free",
        "kubectl describe nodes",
    ),
    _fault(
        "No node has enough memory",
        "FailedScheduling",
        _requests(memory=lambda n: f"{900 + n}Gi"),
        "the request is larger than what any node has free",
        "kubectl describe nodes",
    ),
    _fault(
        "No node has enough GPUs",
        "FailedScheduling",
        _requests(gpu=lambda n: str(8 + n)),
        "more GPUs are asked for than one node has",
        "kubectl get nodes -o yaml",
    ),
    _fault(
        "No node has the label",
        "FailedScheduling",
        _pod(nodeSelector=lambda n: {"disk": _name(n)}, tolerations=[{"operator": "Exists"}]),
        "the node selector names a label that no node carries",
        "kubectl get nodes --show-labels",
    ),
    _fault(
        "The node's taint is not tolerated",
        "FailedScheduling",
        _pod(nodeSelector={"kubernetes.io/hostname": "arcanine"}),
        "the pod is bound to a node whose taint it does not tolerate",
        "kubectl describe node arcanine",
    ),
    _fault(
        "No pod to stand beside",
        "FailedScheduling",
        _pod(
            affinity=lambda n: {
                "podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"labelSelector": {"matchLabels": {"app": _name(n)}}, "topologyKey": "kubernetes.io/hostname"}
                    ]
                }
            }
        ),
        "the affinity asks for a neighbour that runs nowhere",
        "kubectl get pods --all-namespaces --show-labels",
    ),
    _fault(
        "The volume claim does not exist",
        "FailedScheduling",
        _volume(lambda n: {"persistentVolumeClaim": {"claimName": _name(n)}}),
        "the claim was not made, or stands in another namespace",
        "kubectl get pvc",
    ),
    _fault(
        "The ConfigMap does not exist",
        "FailedMount",
        _volume(lambda n: {"configMap": {"name": _name(n)}}),
        "the pod mounts a ConfigMap that is not there",
        "kubectl get configmaps",
        words="configmap",
    ),
    _fault(
        "The Secret does not exist",
        "FailedMount",
        _volume(lambda n: {"secret": {"secretName": _name(n)}}),
        "the pod mounts a Secret that is not there",
        "kubectl get secrets",
        words="secret",
    ),
    _fault(
        "The Secret for a variable does not exist",
        "Failed",
        _container(
            env=lambda n: [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": _name(n), "key": "token"}}}]
        ),
        "a variable is taken from a Secret that is not there",
        "kubectl get secrets",
    ),
    _fault(
        "The key is not in the ConfigMap",
        "Failed",
        _container(
            env=lambda n: [
                {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": _name(n)}}}
            ]
        ),
        "a variable is taken from a key that the ConfigMap lacks",
        "kubectl get configmap kube-root-ca.crt -o yaml",
    ),
    _fault(
        "The image would run as root",
        "Failed",
        _pod(securityContext=lambda _: {"runAsNonRoot": True, "runAsUser": 0}),
        "the pod forbids root, and says user 0",
        "kubectl get pod <pod> -o yaml",
    ),
    _fault(
        "The command is not in the image",
        "Failed",
        _container(command=lambda n: [f"/opt/{_name(n)}/run"]),
        "the container's command is misspelt or was not copied into the image",
        "kubectl logs <pod>",
    ),
    _fault(
        "The program ends at once",
        "BackOff",
        _container(command=lambda n: ["sh", "-c", f"exit {n + 1}"]),
        "the program fails soon after its start",
        "kubectl logs <pod> --previous",
    ),
    _fault(
        "The readiness probe fails",
        "Unhealthy",
        _container(readinessProbe=_probe),
        "nothing answers at the port of the probe",
        "kubectl logs <pod>",
    ),
    _fault(
        "The liveness probe fails",
        "Unhealthy Killing",
        _container(livenessProbe=_probe),
        "nothing answers at the port of the probe, so the container is started again and again",
        "kubectl logs <pod> --previous",
    ),
    _fault(
        "The start hook fails",
        "FailedPostStartHook",
        _container(lifecycle=lambda n: {"postStart": {"exec": {"command": ["sh", "-c", f"exit {n + 1}"]}}}),
        "the hook that runs after the start ends with an error",
        "kubectl describe pod <pod>",
    ),
    _fault(
        "The service account does not exist",
        "FailedCreate",
        _pod(serviceAccountName=_name),
        "the pod names an account that nobody made",
        "kubectl get serviceaccounts",
        by_job=True,
    ),
    _fault(
        "The priority class does not exist",
        "FailedCreate",
        _pod(priorityClassName=_name),
        "the pod names a class that nobody made",
        "kubectl get priorityclasses",
        by_job=True,
    ),
    _fault(
        "The pod is larger than the quota",
        "FailedCreate",
        _requests(cpu=lambda n: str(1000 + n)),
        "the namespace's quota leaves less than the pod asks for",
        "kubectl describe quota",
        by_job=True,
    ),
)


def runbook() -> str:
    """The entries of all faults."""
    return "# Runbook of the cluster\n\n" + "\n".join(fault.entry for fault in FAULTS)


def new_space(kube: Kube) -> str:
    """A new namespace for faults. Whoever asks for it removes it."""
    name = f"e2e-incidents-{time.time_ns() % 10**6}"
    namespace_of(kube, name, labels={"trainyard.dev/test": "e2e"})
    return name


def plant(kube: Kube, namespace: str, *, each: int, first: int = 0) -> dict[str, Fault]:
    """Bring every fault about so many times. Returns which object suffers from which."""
    kube.create(QUOTAS, namespace, {"metadata": {"name": "share"}, "spec": {"hard": {"requests.cpu": "900"}}})
    planted = {}
    for place, fault in enumerate(FAULTS):
        for number in range(first, first + each):
            service = SERVICES[(place * 3 + number) % len(SERVICES)]
            tail = hashlib.sha256(f"{namespace} {place} {number}".encode()).hexdigest()
            name = f"{service}-{tail[:9]}-{tail[9:14]}"  # as a Deployment names its pods: it tells nothing of the fault
            container = {
                "name": service,
                "image": IMAGE,
                "command": SLEEP,
                "resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "64Mi"}},
            }
            spec: Object = {"containers": [container], "terminationGracePeriodSeconds": 0}
            fault.plant(spec, number)
            if fault.by_job:
                template = {"spec": {**spec, "restartPolicy": "Never"}}
                kube.create(JOBS, namespace, {"metadata": {"name": name}, "spec": {"template": template}})
            else:
                kube.create(PODS, namespace, {"metadata": {"name": name}, "spec": spec})
            planted[name] = fault
    return planted


def told(kube: Kube, namespace: str, planted: dict[str, Fault], *, seconds: float) -> list[Object]:
    """What the cluster says about the faults, once it has said something about each: `event` and `fault`, by time."""
    found: dict[str, tuple[Object, Fault]] = {}
    silent = set(planted)
    for change in kube.watch(EVENTS, namespace, seconds=seconds):
        event = change.object
        name = event["involvedObject"]["name"]
        fault = planted.get(name)
        if fault and event["reason"] in fault.told_by and fault.words in event["message"]:
            found[event["metadata"]["name"]] = (event, fault)
            silent.discard(name)
        if not silent:
            break
    if silent:
        missing = sorted({planted[name].heading for name in silent})
        raise TimedOut(f"no event in {seconds:.0f} s tells of: {'; '.join(missing)}")
    return [record(event, fault) for event, fault in found.values()]


def record(event: Object, fault: Fault) -> Object:
    """A problem with its solution: what `kubectl get events` shows, and the runbook's heading."""
    about = event["involvedObject"]
    return {
        "problem": f"{event['type']} {event['reason']} {about['kind'].lower()}/{about['name']}: {event['message']}",
        "initial_answer": "",
        "solution": fault.heading,
        "reasoning_steps": [],
        "metadata": {
            "source": "events",
            "query": about["name"],
            "type": event["reason"],
            "timestamp": event["metadata"]["creationTimestamp"],
        },
    }
