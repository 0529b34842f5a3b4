"""From an object to what the page shows of it: one line in a list, and the whole of it. Pure.

What a run's author may have written in confidence (environment of pods, arguments, inline data) is not among it: only fields that
are named here leave the process, and addresses go through `told`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trainyard.api.addresses import told
from trainyard.api.schedule.trainingschedule import SCHEDULE_LABEL

Row = dict[str, Any]
Raw = Mapping[str, Any]

MESSAGE_LENGTH = 300
"""Of a message in a list; whoever wants to read on opens the run."""
_SUMMARY = ("method", "model", "progress", "step", "loss", "eta", "node", "stepName")
_STATUS = (
    "state", "message", "conditions", "startTime", "completionTime", "activeSeconds", "activeSince", "currentStep",
    "currentPhase", "trainerStatus", "restarts", "restartsCountTowardsMax", "disruptions", "checkpoint", "dataset", "evaluation", "exports",
    "promotions", "model", "effective", "provenance", "failure", "outputs", "cost", "summary", "mlflowRunId",
)  # fmt: skip
"""Of the status, as it is; steps are shortened."""
_SPEC = (
    "suspend",
    "mode",
    "numNodes",
    "numProcPerNode",
    "backoffLimit",
    "activeDeadlineSeconds",
    "checkpoints",
    "phases",
)
_CONFIDENTIAL = ("args", "podTemplate")
"""Where parameters of a sweep may lie whose values are not shown."""
_ATTEMPT = (
    "number", "state", "reason", "counted", "exitCode", "message", "startTime", "completionTime", "node", "firstStep", "lastStep",
    "lastLogLines",
)  # fmt: skip


def _head(raw: Raw) -> Row:
    """What every line begins with."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "state": status.get("state") or "Pending",
        "message": str(status.get("message") or "")[:MESSAGE_LENGTH],
    }


def run_row(raw: Raw) -> Row:
    """One line of the list of runs."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    summary = status.get("summary") or {}
    row: Row = {
        **_head(raw),
        "created": metadata.get("creationTimestamp"),
        "started": status.get("startTime"),
        "completed": status.get("completionTime"),
        "stalled": _holds(status.get("conditions"), "Stalled"),
        "schedule": (metadata.get("labels") or {}).get(SCHEDULE_LABEL),
        "verdict": _verdict(status),
    }
    row |= {name: summary.get(name) for name in _SUMMARY}
    return {name: value for name, value in row.items() if value not in (None, "", False)}


def schedule_row(raw: Raw) -> Row:
    """One line of the list of schedules."""
    status = raw.get("status") or {}
    row: Row = {
        **_head(raw),
        "schedule": status.get("summary"),
        "next": status.get("nextScheduleTime"),
        "last": status.get("lastScheduleTime"),
        "lastRun": status.get("lastRun"),
        "active": [run.get("name") for run in status.get("active") or ()],
        "runs": status.get("runs"),
    }
    return {name: value for name, value in row.items() if value not in (None, "", [])}


def sweep_row(raw: Raw) -> Row:
    """One line of the list of sweeps."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    objective = spec.get("objective") or {}
    row: Row = {
        **_head(raw),
        "algorithm": spec.get("algorithm"),
        "metric": objective.get("metric"),
        "direction": objective.get("direction"),
        "trials": status.get("summary"),
        "best": _without_secrets(status.get("best") or {}),
        "created": metadata.get("creationTimestamp"),
    }
    return {name: value for name, value in row.items() if value not in (None, "", {})}


def sweep_detail(raw: Raw) -> dict[str, Any]:
    """Everything that the page of a sweep shows."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    asha = (spec.get("earlyStopping") or {}).get("asha") or {}
    return sweep_row(raw) | {
        "counts": status.get("trialCounts") or {},
        "table": [_without_secrets(trial) for trial in status.get("trials") or ()],
        "parameters": [
            {"name": each.get("name"), "log": any((each.get(kind) or {}).get("log") for kind in ("double", "int"))}
            for each in spec.get("parameters") or ()
            if not str(each.get("name")).startswith(_CONFIDENTIAL)
        ],
        "asha": {name: asha[name] for name in ("minimumSteps", "reductionFactor", "rungs") if name in asha},
    }


def _without_secrets(trial: Raw) -> Row:
    """A trial without its values of arguments and environment."""
    values = trial.get("assignments") or {}
    shown = {name: value for name, value in values.items() if not name.startswith(_CONFIDENTIAL)}
    return {**trial, **({"assignments": shown} if values else {})}


def run_detail(raw: Raw) -> dict[str, Any]:
    """Everything that the page of a run shows."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    training = spec.get("training") or {}
    return run_row(raw) | {
        "status": {name: status[name] for name in _STATUS if name in status} | {"steps": _steps(status.get("steps"))},
        "spec": {name: spec[name] for name in _SPEC if name in spec}
        | {
            "training": {name: value for name, value in training.items() if _is_plain(value)},
            "base": told(str((spec.get("model") or {}).get("storageUri") or "")) or None,
            "datasets": [_dataset(each) for each in spec.get("datasets") or ()],
            "resources": (spec.get("resources") or {}).get("limits"),
            "placement": (spec.get("placement") or {}).get("nodeNames"),
            "exports": [each.get("name") for each in spec.get("exports") or ()],
        },
        "labels": (raw["metadata"].get("labels") or {}),
    }


def schedule_detail(raw: Raw) -> dict[str, Any]:
    """Everything that the page of a schedule shows."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    shown = ("conditions", "lastSuccessfulTime", "successes", "firing")
    return schedule_row(raw) | {
        "timeZone": spec.get("timeZone"),
        "suspend": bool(spec.get("suspend")),
        "variants": [each.get("name") for each in spec.get("variants") or ()],
        "triggers": [
            {
                name: each.get(name)
                for name in ("name", "message", "failing", "lastCheckTime", "lastFireTime", "pending")
            }
            for each in status.get("triggers") or ()
        ],
        "status": {name: status[name] for name in shown if name in status},
    }


def _steps(steps: Iterable[Raw] | None) -> list[Row]:
    return [
        {name: step.get(name) for name in ("name", "state", "job", "totalSteps")}
        | {"attempts": [{n: a[n] for n in _ATTEMPT if n in a} for a in step.get("attempts") or ()]}
        for step in steps or ()
    ]


def _dataset(dataset: Raw) -> Row:
    return {"name": dataset.get("name"), "address": told(str(dataset.get("storageUri") or "")) or None}


def _holds(conditions: Iterable[Raw] | None, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in conditions or ())


def _verdict(status: Raw) -> str | None:
    """What the gates say; of a run without gates, nothing."""
    gates = (status.get("evaluation") or {}).get("gates") or ()
    verdicts = {str(gate.get("verdict")) for gate in gates}
    return next((v for v in ("Reject", "Inconclusive", "Promote") if v in verdicts), None)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
