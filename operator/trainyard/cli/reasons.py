"""What each reason of a run means, and what its owner can do: the words of `trainyard explain`."""

from typing import NamedTuple

from trainyard.api.conditions import Reason


class Advice(NamedTuple):
    """A reason in a sentence, and the way out; empty where nothing has to be done."""

    means: str
    do: str = ""


LOGS = "read the log: {called} logs {run}"
AGAIN = "correct the spec and start a new run: kubectl get trainingrun {run} -o yaml, change it, apply it under another name"

ADVICE: dict[str, Advice] = {
    Reason.PENDING: Advice("the run is about to start, or a retry waits for its time"),
    Reason.PREPARING: Advice("the prepare step fetches, checks and tokenises the data"),
    Reason.VALIDATING: Advice("the spec and every record are being checked"),
    Reason.TRAINING: Advice("the model is being trained"),
    Reason.EVALUATING: Advice("the trained model is being measured on held-out data"),
    Reason.SUSPENDING: Advice("the run was asked to stop, and its pod writes a last checkpoint"),
    Reason.SUSPENDED: Advice("the run was stopped on purpose; its GPU is free", "let it go on: {called} resume {run}"),
    Reason.WAITING_FOR_APPROVAL: Advice(
        "the run begins when somebody who may do so has approved what it will cost", "{called} approve {run}"
    ),
    Reason.COST_LIMIT: Advice(
        "the run's GPUs have cost what spec.cost.limit allows; it has written a checkpoint and holds none",
        "raise the limit, and it goes on from there: {called} resume {run} --cost-limit AMOUNT",
    ),
    Reason.RESUMED: Advice("the run goes on after a suspension"),
    Reason.SUCCEEDED: Advice(
        "the run has done everything it was asked for", "fetch the result: {called} download {run}"
    ),
    Reason.QUEUED: Advice(
        "the Job waits until its queue (Kueue) lets it in",
        "see who is before it: kubectl get workloads{where}, and kubectl describe the LocalQueue that the run's label names",
    ),
    Reason.UNSCHEDULABLE: Advice(
        "no node can take the pod now: too little of what it asks for is free, or a taint or selector keeps it away",
        "compare with the nodes: {called} gpu{where}; ask for less in spec.resources, or choose nodes in spec.placement",
    ),
    Reason.IMAGE_PULL: Advice(
        "the node cannot pull the container's image",
        "check spec.image (name and tag), and for a private registry spec.podTemplate.imagePullSecrets",
    ),
    Reason.VOLUME: Advice(
        "a volume cannot be made or mounted",
        "kubectl describe pvc{where} shows what its storage class says; a volume that is mounted on another node has to be released there",
    ),
    Reason.CONTAINER_CONFIG: Advice(
        "the container cannot be made: a Secret, ConfigMap or key that it names is missing",
        "create what the message names; the pod then starts by itself",
    ),
    Reason.QUOTA: Advice(
        "the namespace's quota is used up",
        "kubectl describe quota{where} shows by what; it is tried again by itself when something has ended",
    ),
    Reason.FORBIDDEN: Advice(
        "the cluster's admission refuses the pod",
        "change what the message names in spec.podTemplate or spec.placement, or have the namespace's policy changed",
    ),
    Reason.YIELDING: Advice(
        "a Deployment makes room for the training (spec.placement.yieldFrom), and its pods are still there",
        "it begins by itself when they are gone; if they stay, look at the pods that the message names with kubectl describe",
    ),
    Reason.NODE_LOST: Advice(
        "the pod's node has stopped reporting",
        "get the node back, or delete it from the cluster: then the run goes on elsewhere, if its volume can",
    ),
    Reason.MISSING_CLAIM: Advice(
        "a claim that the run names does not exist", "create it, or correct the name in the spec"
    ),
    Reason.MISSING_SECRET: Advice(
        "a Secret that the run names does not exist", "create it, or correct the name in the spec"
    ),
    Reason.DISRUPTED: Advice(
        "the pod was evicted, preempted, drained or deleted; that is not counted, and the run goes on"
    ),
    Reason.INTERRUPTED: Advice(
        "the pod was asked to end and has saved its state; that is not counted, and the run goes on"
    ),
    Reason.HOST_OUT_OF_MEMORY: Advice(
        "the container was killed at its memory limit",
        "raise spec.resources.limits.memory (of another step: spec.stepResources or exports[].resources), or make batches smaller",
    ),
    Reason.DEVICE_OUT_OF_MEMORY: Advice(
        "the GPU's memory does not suffice, also after batches were made as small as they go",
        "train an adapter (spec.model.adapter.lora, quantization NF4), shorten training.maxLength, or use a larger GPU",
    ),
    Reason.OUT_OF_MEMORY_REDUCED: Advice(
        "the GPU's memory did not suffice; the run goes on with smaller batches by itself"
    ),
    Reason.INVALID_CONFIG: Advice(
        "the spec asks for something that cannot be done; a retry would fail in the same way", AGAIN
    ),
    Reason.INVALID_DATA: Advice(
        "the data cannot be used; a retry would fail in the same way",
        "correct the records that the message names, then {called} retry {run}",
    ),
    Reason.SOURCE_UNAVAILABLE: Advice(
        "a source of data or of the model did not answer",
        "check the address and whether pods may reach it (network policy, proxy), then {called} retry {run}",
    ),
    Reason.STORAGE: Advice(
        "a volume is full or gives errors",
        "make room or enlarge the claim, lower checkpoints.keepLast, then {called} retry {run}",
    ),
    Reason.KILLED: Advice("the process was killed from outside, and not for memory", LOGS),
    Reason.ERROR: Advice("the process ended with an error", LOGS),
    Reason.INVALID_SPEC: Advice(
        "the operator cannot read the spec",
        "{called} validate -f FILE tells every fault; correct it and apply again",
    ),
    Reason.BACKOFF_LIMIT_EXCEEDED: Advice(
        "it has failed more often than spec.backoffLimit allows",
        "look at the attempts below, remove the cause, then {called} retry {run}",
    ),
    Reason.DEADLINE_EXCEEDED: Advice(
        "it took longer than spec.activeDeadlineSeconds",
        "{called} retry {run} goes on from its checkpoint; a longer deadline needs a new manifest",
    ),
    Reason.CANCELLED: Advice("it was ended on request, after a checkpoint", "{called} retry {run} goes on from there"),
    Reason.UNCHANGED: Advice("the prepared data are those of an earlier run, so there was nothing new to train"),
    Reason.NAME_CONFLICT: Advice(
        "an object of the name that this run needs belongs to somebody else",
        "delete or rename what the message names, or give the run another name",
    ),
    "Exporting": Advice("the result is being sent where spec.exports say"),
    "ExportFailed": Advice(
        "an export has failed too often; the trained model is on the volume all the same",
        "correct what the message names, then {called} retry {run}; or fetch the model: {called} download {run}",
    ),
    "Promote": Advice("the gates have passed", "make it the champion: {called} promote {run}"),
    "Reject": Advice("the result is not as good as its gates ask", "compare the numbers: {called} status {run}"),
    "Inconclusive": Advice(
        "there were too few records to tell whether the result is good enough",
        "hold out more records (datasets[].split)",
    ),
    Reason.STEP_STARTED: Advice("a step has begun"),
    Reason.STEP_SUCCEEDED: Advice("a step has ended well"),
    Reason.RETRYING: Advice("an attempt has failed, and another follows"),
}


def advice_on(reason: str) -> Advice:
    """For reasons of a newer operator, what can always be said."""
    return ADVICE.get(reason, Advice(f"the operator says {reason}" if reason else "nothing is known yet", LOGS))
