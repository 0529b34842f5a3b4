"""Why nothing happens yet: the reason that a Job has no running pod, in words a user can act on.

The pod knows most of it (unschedulable, image, configuration). What it does not know stands in Events: a volume that
cannot be mounted, and everything that keeps the Job controller from making a pod at all.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from trainyard.api.conditions import Reason, State
from trainyard.api.run.pod import Placement
from trainyard.controller.runs.status import Standing
from trainyard.controller.runs.views import JobView, PodView
from trainyard.controller.runs.volumes import NO_VOLUMES, Volumes
from trainyard.controller.runs.wordings import hint

EVENTS_AFTER_SECONDS = 4.0
"""Events cost a request: they are read only for a pod (or a Job without one) that has waited this long."""

IMAGE_PATIENCE_SECONDS = 20.0
"""A registry may have a bad moment; an image that is missing for longer needs somebody's help."""

_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


_ANYWHERE = Placement()


@dataclass(frozen=True)
class Complaint:
    """The newest warning Event about a pod or a Job."""

    reason: str
    message: str


@dataclass(frozen=True)
class Waited:
    """What was found out about a Job that waits."""

    complaint: Complaint | None = None
    impossible: tuple[str, ...] = ()
    """Why no node of the cluster could hold its pod even when it is empty."""
    line: str = ""
    """Who has the device that its pod waits for, and who stands in line before it."""
    volumes: Volumes = NO_VOLUMES
    unheard: str = ""
    """Why nobody will ever admit it from its queue."""


NOTHING_FOUND = Waited()


@dataclass(frozen=True)
class Wait:
    """A reason and a sentence. `hopeless`: nothing will change without somebody's help."""

    reason: Reason
    message: str
    hopeless: bool = False

    @property
    def standing(self) -> Standing:
        """How the run stands while it waits so."""
        return Standing(State.PENDING, self.reason, self.message, stalled=self.hopeless)


QUEUED = Wait(Reason.QUEUED, "waiting for its queue to admit the Job")


def needs_events(job: JobView, pod: PodView | None, now: datetime) -> bool:
    """Whether only Events can tell what the Job waits for."""
    if job.finished or job.suspended or job.terminating:
        return False
    if pod is None:
        return (now - job.created).total_seconds() >= EVENTS_AFTER_SECONDS
    quiet = pod.phase == "Pending" and not pod.unschedulable and pod.waiting_reason in ("", "ContainerCreating")
    return quiet and (now - pod.created).total_seconds() >= EVENTS_AFTER_SECONDS


def needs_queue(job: JobView, now: datetime) -> bool:
    """Whether a Job has been in its queue for long enough to ask who listens to that."""
    return job.suspended and not job.finished and (now - job.created).total_seconds() >= EVENTS_AFTER_SECONDS


def why_waiting(
    job: JobView,
    pod: PodView | None,
    *,
    now: datetime,
    about: Waited = NOTHING_FOUND,
    queued: bool = False,
    placement: Placement = _ANYWHERE,
) -> Wait | None:
    """None while the pod runs or is just starting. `queued`: the Job was made for a queue."""
    if job.suspended and queued and about.unheard:
        return Wait(Reason.QUEUED, f"{QUEUED.message}; {about.unheard}", hopeless=True)
    if job.suspended:
        return QUEUED if queued else _held(job)
    if pod is None:
        return _without_pod(about.complaint)
    if pod.node_lost or pod.reason == "NodeLost":
        return Wait(
            Reason.NODE_LOST,
            f"node {pod.node} has stopped reporting; the run goes on when it is back (or, if its volumes exist elsewhere, "
            "when the node is deleted)",
        )
    if pod.phase != "Pending":
        return None
    if pod.unschedulable:
        if about.impossible:
            why = "; ".join(about.impossible)
            return Wait(Reason.UNSCHEDULABLE, f"no node can ever run this pod: {why}", hopeless=True)
        if about.volumes.unbound is not None:
            unbound = about.volumes.unbound
            return Wait(Reason.VOLUME, unbound.message, hopeless=unbound.lasting)
        if about.line:
            return Wait(Reason.UNSCHEDULABLE, f"waiting in line: {about.line} ({pod.unschedulable})")
        way_out = hint(pod.unschedulable, placement, volumes=about.volumes.nodes)
        return Wait(Reason.UNSCHEDULABLE, f"waiting for a node: {pod.unschedulable}{way_out}")
    if pod.waiting_reason in _IMAGE_REASONS:
        # The kubelet alternates between trying and backing off; one sentence for both keeps the status still.
        detail = (pod.waiting_message or pod.waiting_reason).rpartition("ErrImagePull: ")[2]
        lasting = (now - pod.created).total_seconds() > IMAGE_PATIENCE_SECONDS
        way_out = "check spec.image and podTemplate.imagePullSecrets"
        return Wait(Reason.IMAGE_PULL, f"the image cannot be pulled: {detail}; {way_out}", hopeless=lasting)
    if pod.waiting_reason in _CONFIG_REASONS:
        return Wait(Reason.CONTAINER_CONFIG, f"the container cannot be made: {pod.waiting_message}", hopeless=True)
    if (complaint := about.complaint) is not None:
        reason = Reason.VOLUME if re.search("Mount|Volume|Attach", complaint.reason) else Reason.PENDING
        return Wait(reason, f"the pod cannot start yet: {complaint.message}")
    return None


def _held(job: JobView) -> Wait:
    text = (
        f"Job {job.name} has been suspended, and not by this operator; it goes on when its own spec.suspend is false again "
        "(to pause a run, set spec.suspend of the TrainingRun)"
    )
    return Wait(Reason.PENDING, text)


def _without_pod(complaint: Complaint | None) -> Wait | None:
    if complaint is None:
        return None
    if "exceeded quota" in complaint.message:
        return Wait(
            Reason.QUOTA,
            f"the namespace's quota does not allow the pod: {complaint.message}; it is tried again by itself",
        )
    return Wait(Reason.FORBIDDEN, f"the cluster refuses the pod: {complaint.message}", hopeless=True)
