"""Why an attempt ended, in a word that `retry.py` acts on and a sentence for people.

Evidence, best first: the trainer's own final record, the pod's state, and where the pod is already gone the condition of
its Job.

    reason                 evidence
    Disrupted              evicted, preempted, drained, deleted, exit code 143
    Interrupted            exit code 75: SIGTERM was honoured
    HostOutOfMemory        OOMKilled
    Killed                 exit code 137 otherwise
    SourceUnavailable      exit code 69
    StorageError           exit code 74
    InvalidConfig/Data     exit codes 64, 65, a command that is not there
    OutOfMemoryReduced     exit code 79, and the record says Resume
    DeviceOutOfMemory      exit code 79 otherwise
    Error                  anything else; Interrupted if the record says Resume
"""

import re
from dataclasses import dataclass

from trainyard.api.addresses import told
from trainyard.api.bounds import LINE_LENGTH
from trainyard.api.conditions import Reason
from trainyard.api.exitcodes import ExitCode
from trainyard.api.progress import FinalRecord
from trainyard.api.texts import one_line
from trainyard.controller.runs import retry
from trainyard.controller.runs.views import JobView, PodView

SIGKILL_EXIT = 137
SIGTERM_EXIT = 143
_NO_SUCH_COMMAND = re.compile(
    r'exec: "?(?P<program>[^":]+)"?: (?P<why>.*?(?:not found|no such file|permission denied)[^:]*)'
)
"""In what a container runtime says when it cannot start the first process."""
LOG_LINES_KEPT = 10

_BY_EXIT_CODE = {
    ExitCode.INVALID_CONFIG: Reason.INVALID_CONFIG,
    ExitCode.INVALID_DATA: Reason.INVALID_DATA,
    ExitCode.SOURCE_UNAVAILABLE: Reason.SOURCE_UNAVAILABLE,
    ExitCode.STORAGE: Reason.STORAGE,
    ExitCode.RESUME: Reason.INTERRUPTED,
    ExitCode.DEVICE_OUT_OF_MEMORY: Reason.DEVICE_OUT_OF_MEMORY,
}

_HINTS = {
    Reason.HOST_OUT_OF_MEMORY: "raise spec.resources.limits.memory, or lower perDeviceTrainBatchSize or maxLength",
    Reason.DEVICE_OUT_OF_MEMORY: "in a new run, lower maxLength or use a GPU with more memory, and checkpoints.resumeFrom goes on from "
    "here; or train a LoRA adapter (spec.model.adapter), which begins anew",
    Reason.KILLED: "look at the node: memory that ran out beside the pod's own limit, or a shutdown, are the usual reasons",
    Reason.STORAGE: "free space on the checkpoint volume, or give it a larger size",
}


@dataclass(frozen=True)
class Outcome:
    """How a failed attempt is booked."""

    reason: Reason
    message: str
    counted: bool
    hint: str | None = None
    exit_code: int | None = None
    log_lines: tuple[str, ...] = ()


def final_record(pod: PodView | None) -> FinalRecord | None:
    """The record that the trainer left, or None where it left something else or nothing."""
    if pod is None or not pod.termination_message.lstrip().startswith("{"):
        return None
    return FinalRecord.lenient(pod.termination_message)


def failed_outcome(job: JobView, pod: PodView | None, *, progressed: bool) -> Outcome:
    """Classify a failed Job. `progressed`: a checkpoint was committed since the attempt began."""
    record = final_record(pod)
    exit_code = pod.exit_code if pod and pod.exit_code is not None else _exit_code_in(job.failure_message)
    reason = retry.on_request(_reason(job, pod, exit_code), record)
    lines = _log_lines(pod, record)
    return Outcome(
        reason=reason,
        message=_message(reason, job, pod, record, exit_code, lines),
        counted=retry.counts(reason, progressed=progressed),
        hint=(record.hint if record else None) or _HINTS.get(reason),
        exit_code=exit_code,
        log_lines=lines,
    )


def _no_such_command(pod: PodView | None) -> str | None:
    """What is wrong with the command, where the container was made and its first process could not be."""
    if pod is None or pod.termination_reason not in ("StartError", "ContainerCannotRun"):
        return None
    found = _NO_SUCH_COMMAND.search(pod.termination_message)
    return f"the image cannot start {found['program']!r}: {found['why'].strip()}" if found else None


def _reason(job: JobView, pod: PodView | None, exit_code: int | None) -> Reason:
    if _no_such_command(pod) is not None:
        return Reason.INVALID_CONFIG
    if pod is not None and pod.termination_reason == "OOMKilled":
        return Reason.HOST_OUT_OF_MEMORY
    if exit_code in _BY_EXIT_CODE:
        return _BY_EXIT_CODE[ExitCode(exit_code)]
    if retry.was_disrupted(job, pod) or exit_code == SIGTERM_EXIT:
        return Reason.DISRUPTED
    if exit_code == SIGKILL_EXIT:
        return Reason.KILLED
    if exit_code is None and (pod is None or pod.terminating):
        return Reason.DISRUPTED
    return Reason.ERROR


def _exit_code_in(message: str) -> int | None:
    found = re.search(r"failed with exit code (\d{1,3})\b", message)
    return int(found.group(1)) if found else None


def _log_lines(pod: PodView | None, record: FinalRecord | None) -> tuple[str, ...]:
    if record is not None:
        return tuple(told(line) for line in record.last_log_lines[-LOG_LINES_KEPT:])
    if pod is None:
        return ()
    lines = [line.rstrip() for line in pod.termination_message.splitlines() if line.strip()]
    return tuple(one_line(told(line), limit=LINE_LENGTH) for line in lines[-LOG_LINES_KEPT:])


def _message(
    reason: Reason,
    job: JobView,
    pod: PodView | None,
    record: FinalRecord | None,
    exit_code: int | None,
    lines: tuple[str, ...],
) -> str:
    if record is not None and record.message:
        return record.message
    if (fault := _no_such_command(pod)) is not None:
        return f"{fault}; correct spec.command, or use an image in spec.image that has it"
    match reason:
        case Reason.DISRUPTED if pod is not None and pod.disruption:
            return f"the pod was disrupted: {pod.disruption}"
        case Reason.DISRUPTED if pod is not None and pod.reason:
            return f"the pod was disrupted: {pod.reason} {pod.message}".strip()
        case Reason.DISRUPTED:
            return "the pod was stopped or deleted before it had finished"
        case Reason.INTERRUPTED:
            return "the pod was asked to stop and saved its state"
        case Reason.HOST_OUT_OF_MEMORY:
            return "the container was killed at its memory limit"
        case Reason.KILLED:
            return "the container was killed with SIGKILL from outside"
        case _:
            last = lines[-1] if lines else (pod.message if pod and pod.message else job.failure_message)
            code = f"exit code {exit_code}" if exit_code is not None else "it failed"
            return f"{code}: {last}" if last else code
