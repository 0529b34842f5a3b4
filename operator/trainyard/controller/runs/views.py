"""What the planner reads from Jobs and pods: small frozen values instead of the API server's nested dictionaries."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard.api.gpus import gpus_in
from trainyard.api.names import ATTEMPT_LABEL, RUN_UID_LABEL, STEP_LABEL, TRAINER_CONTAINER, job_name

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Which of the pods of an Indexed Job it is."""

Raw = Mapping[str, Any]


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time as Kubernetes writes it."""
    return datetime.fromisoformat(text) if text else None


def controller(raw: Raw) -> Raw | None:
    """The owner reference of the object that controls this one."""
    return next((o for o in raw["metadata"].get("ownerReferences") or () if o.get("controller")), None)


def owner_uid(raw: Raw) -> str | None:
    """Uid of the TrainingRun that controls the object."""
    owner = controller(raw)
    return str(owner["uid"]) if owner is not None and owner.get("kind") == "TrainingRun" else None


def _job_labels(raw: Raw) -> Mapping[str, str]:
    """What the Job was made as. Its own labels can be edited at any time, those of its pods hardly ever."""
    pods = raw.get("spec", {}).get("template", {}).get("metadata", {}).get("labels") or {}
    return {**(raw["metadata"].get("labels") or {}), **pods}


def is_job_of(raw: Raw, *, run: str, uid: str) -> bool:
    """Whether it is a Job of this run: the run controls it; or nobody does any more, and it is the one that was made."""
    if controller(raw) is not None:
        return owner_uid(raw) == uid
    labels = _job_labels(raw)
    attempt = labels.get(ATTEMPT_LABEL, "")
    if labels.get(RUN_UID_LABEL) != uid or not attempt.isdigit():
        return False
    return bool(raw["metadata"]["name"] == job_name(run, labels.get(STEP_LABEL, ""), int(attempt)))


@dataclass(frozen=True)
class JobView:
    """A Job of the run."""

    name: str
    uid: str
    step: str
    attempt: int
    created: datetime
    pods: int = 1
    """How many work on it at once."""
    gpus: int = 0
    """Of all its pods together."""
    terminating: bool = False
    suspended: bool = False
    orphaned: bool = False
    """Its owner reference was taken away, so it does not go with the run."""
    succeeded: bool = False
    failed: bool = False
    failure_reason: str = ""
    failure_message: str = ""
    ended: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether the Job controller is done with it."""
        return self.succeeded or self.failed

    @classmethod
    def of(cls, raw: Raw) -> "JobView | None":
        """None for a Job that carries our labels but is not an attempt of a step."""
        metadata, status = raw["metadata"], raw.get("status", {})
        labels = _job_labels(raw)
        if STEP_LABEL not in labels or not labels.get(ATTEMPT_LABEL, "").isdigit():
            return None
        true = {c["type"]: c for c in status.get("conditions", []) if c.get("status") == "True"}
        failed = true.get("Failed", {})
        ended = failed.get("lastTransitionTime") or status.get("completionTime")
        spec = raw.get("spec", {})
        pods = int(spec.get("completions") or 1)
        containers = spec.get("template", {}).get("spec", {}).get("containers") or ()
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            step=labels[STEP_LABEL],
            attempt=int(labels[ATTEMPT_LABEL]),
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            pods=pods,
            gpus=pods * sum(gpus_in((c.get("resources") or {}).get("limits") or {}) for c in containers),
            terminating="deletionTimestamp" in metadata,
            suspended=bool(spec.get("suspend")),
            orphaned=controller(raw) is None,
            succeeded="Complete" in true,
            failed=bool(failed),
            failure_reason=failed.get("reason", ""),
            failure_message=failed.get("message", ""),
            ended=parse_time(ended),
        )


def _told_by_init_container(status: Raw) -> Raw | None:
    """State of an init container that keeps the pod from starting, told under its name: one that has failed, or cannot run."""
    for one in status.get("initContainerStatuses", []):
        state, told = one.get("state", {}), f"init container {one.get('name')}"
        ended, waiting = state.get("terminated", {}), state.get("waiting", {})
        if ended.get("exitCode"):
            said = str(ended.get("message") or "").strip() or f"ended with exit code {ended['exitCode']}"
            return {"terminated": {**ended, "message": f"{told}: {said}"}}
        if waiting.get("reason", "PodInitializing") != "PodInitializing":
            message = f"{told}: {waiting.get('message') or waiting['reason']}"
            return {"waiting": {**waiting, "message": message}}
    return None


@dataclass(frozen=True)
class PodView:
    """A pod of one of the run's Jobs."""

    name: str
    uid: str
    job: str
    created: datetime
    step: str = ""
    index: int = 0
    phase: str = "Pending"
    node: str | None = None
    terminating: bool = False
    grace_seconds: int | None = None
    """Of a pod that is on its way out."""
    reason: str = ""
    """`status.reason`: Evicted, NodeLost and the like."""
    message: str = ""
    unschedulable: str = ""
    waiting_reason: str = ""
    waiting_message: str = ""
    disruption: str = ""
    """Reason and message of a true DisruptionTarget condition."""
    running: bool = False
    beside: tuple[str, ...] = ()
    """Containers beside the trainer's that run."""
    exit_code: int | None = None
    termination_reason: str = ""
    termination_message: str = ""
    image_id: str = ""
    """What the runtime really started: an image by digest."""
    began: datetime | None = None
    """When the container that runs, or ran last, began."""
    ended: datetime | None = None
    node_lost: bool = False

    @property
    def started(self) -> bool:
        """Whether the trainer's container runs, or has run."""
        return self.running or self.exit_code is not None

    @property
    def live(self) -> bool:
        """Whether the trainer's container runs or may still do so."""
        return self.exit_code is None and self.phase not in ("Succeeded", "Failed")

    @classmethod
    def of(cls, raw: Raw) -> "PodView":
        """Reads the trainer's container; sidecars that a cluster injects are passed over."""
        metadata, status = raw["metadata"], raw.get("status", {})
        conditions = {c["type"]: c for c in status.get("conditions", [])}
        whole: Raw = next(
            (c for c in status.get("containerStatuses", []) if c.get("name") == TRAINER_CONTAINER), {"state": {}}
        )
        container: Raw = _told_by_init_container(status) or whole["state"]
        waiting, terminated = container.get("waiting", {}), container.get("terminated", {})
        scheduled, target = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
        disrupted = target.get("status") == "True"
        ready = conditions.get("Ready", {})
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            job=metadata.get("labels", {}).get("batch.kubernetes.io/job-name", ""),
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            step=metadata.get("labels", {}).get(STEP_LABEL, ""),
            index=int(metadata.get("labels", {}).get(INDEX_LABEL, "0")),
            phase=status.get("phase", "Pending"),
            node=raw.get("spec", {}).get("nodeName"),
            terminating="deletionTimestamp" in metadata,
            grace_seconds=metadata.get("deletionGracePeriodSeconds"),
            reason=status.get("reason", ""),
            message=status.get("message", ""),
            unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
            waiting_reason=waiting.get("reason", ""),
            waiting_message=waiting.get("message", ""),
            disruption=f"{target.get('reason', '')}: {target.get('message', '')}" if disrupted else "",
            running="running" in container,
            beside=tuple(
                str(c["name"])
                for c in status.get("containerStatuses", [])
                if c.get("name") != TRAINER_CONTAINER and "running" in c.get("state", {})
            ),
            exit_code=terminated.get("exitCode"),
            termination_reason=terminated.get("reason", ""),
            termination_message=terminated.get("message", ""),
            image_id=whole.get("imageID", ""),
            began=parse_time((container.get("running") or terminated).get("startedAt")),
            ended=parse_time(terminated.get("finishedAt")),
            # The node controller sets Ready to False on all pods of a node that stopped reporting, while the container
            # still counts as running; a pod that is merely not ready has no such combination without a probe.
            node_lost="running" in container and ready.get("status") == "False" and not terminated,
        )
