"""Containers that a cluster adds to pods (a service mesh, an agent of a vault) and that do not end by themselves. Pure.

Kubernetes calls a pod ended when all of its containers have. A trainer that has ended and left its record beside one that
runs on would keep its Job, its step and its GPU for ever. So its own end counts, a moment later; the pod is then told to go
with a short grace, because nothing in it has work to save, and its Job after it.
"""

from collections.abc import Sequence
from datetime import datetime

from trainyard.api.run.status import StepStatus
from trainyard.controller.kube.resources import JOBS, PODS
from trainyard.controller.runs.actions import Delete
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.views import JobView, PodView

PATIENCE_SECONDS = 3.0
"""A pod without such a container is called ended within about a second of its trainer."""
GRACE_SECONDS = 3


def outlived(pod: PodView) -> bool:
    """Whether the trainer has ended in a pod that has not."""
    return pod.exit_code is not None and pod.phase == "Running"


def seconds_left(job: JobView, pods: Sequence[PodView], now: datetime) -> float | None:
    """Until the Job counts as ended by its trainers alone, 0 if it does; None where that is no question: the Job has ended, a
    trainer still works, or no other container does."""
    if job.finished or len(pods) < job.pods or any(pod.exit_code is None for pod in pods):
        return None
    waited = [(now - pod.ended).total_seconds() if pod.ended else PATIENCE_SECONDS for pod in pods if outlived(pod)]
    return max(0.0, PATIENCE_SECONDS - min(waited)) if waited else None


def released(seen: Observed, steps: Sequence[StepStatus]) -> tuple[Delete, ...]:
    """What goes with the attempts that were closed while something in their pods still ran."""
    actions: list[Delete] = []
    for job in seen.jobs:
        pods = seen.pods_of(job)
        if seconds_left(job, pods, seen.now) != 0 or (_is_open(job, steps) and not job.terminating):
            continue
        held = (p for p in pods if outlived(p) and (p.grace_seconds is None or p.grace_seconds > GRACE_SECONDS))
        actions += [Delete(PODS, pod.name, pod.uid, "Background", grace_seconds=GRACE_SECONDS) for pod in held]
        if not job.terminating:
            actions.append(Delete(JOBS, job.name, job.uid, "Background"))
    return tuple(actions)


def _is_open(job: JobView, steps: Sequence[StepStatus]) -> bool:
    attempts = (a for s in steps if s.name == job.step for a in s.attempts or () if a.number == job.attempt)
    return any(attempt.state == "Running" for attempt in attempts)


def told(pods: Sequence[PodView]) -> str:
    """Which containers the pods still wait for; empty where that is no question."""
    names = list(dict.fromkeys(name for pod in pods if outlived(pod) for name in pod.beside))
    running = "still runs" if len(names) == 1 else "still run"
    return f"; the trainer has ended, and {', '.join(names)} beside it {running}" if names else ""
