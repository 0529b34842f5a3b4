"""The pods of one Job: which of them speaks for all.

They succeed together and fail together. When one fails, the others lose it and end too, with exit code 75; when one waits
for a node, the others wait for it. So the pod to look at is the one that is worst off, and where none is, the first, which
writes the checkpoints and reports the progress.
"""

from trainyard.api.exitcodes import ExitCode
from trainyard.controller.runs.views import JobView, PodView

_FINAL = (ExitCode.INVALID_CONFIG, ExitCode.INVALID_DATA, ExitCode.DEVICE_OUT_OF_MEMORY)


def telling(job: JobView, pods: tuple[PodView, ...]) -> PodView | None:
    """The pod that explains how the Job stands; None while there is none, or fewer than there should be."""
    if job.pods == 1:
        return pods[-1] if pods else None
    if failed := [p for p in pods if _failed(p)]:
        return max(failed, key=_blame)
    if len(pods) < job.pods:
        return None
    return next((p for p in pods if not _at_work(p)), pods[0])


def all_succeeded(job: JobView, pods: tuple[PodView, ...]) -> bool:
    """Whether every pod has, a moment before the Job controller has booked it.

    One that was told to go and ended well on the way is not among them: the Job controller may have let it go already (the Job
    was suspended by hand), and makes another one, which must not work beside the next step.
    """
    return len(pods) == job.pods and all(p.phase == "Succeeded" and not p.terminating for p in pods)


def others(job: JobView, pod: PodView | None, pods: tuple[PodView, ...]) -> str:
    """What is to be said of the rest of the group while one of them waits; empty for a single pod."""
    if job.pods == 1:
        return ""
    ready = sum(_at_work(p) for p in pods)
    which = "" if pod is None else f"pod {pod.index} "
    held = f", {ready} of {job.pods} pods hold their nodes and wait for it" if ready else ""
    return f" ({which}of {job.pods}{held})"


def _failed(pod: PodView) -> bool:
    return pod.phase == "Failed" or bool(pod.exit_code)


def _at_work(pod: PodView) -> bool:
    return (pod.running and not pod.node_lost) or pod.phase == "Succeeded"


def _blame(pod: PodView) -> tuple[int, int]:
    """How likely it is that this one failed first, of all that did; the lower index of two alike."""
    code = pod.exit_code
    if code in _FINAL:
        guilt = 5
    elif pod.termination_reason == "OOMKilled":
        guilt = 4
    elif pod.disruption or pod.reason:
        guilt = 2
    elif code == ExitCode.RESUME:
        guilt = 1
    else:
        guilt = 0 if code is None else 3
    return guilt, -pod.index
