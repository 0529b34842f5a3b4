"""Events of a run and of what was made for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainyard.api.exitcodes import ExitCode
from trainyard.api.names import checkpoints_claim_name
from trainyard.client import NotAllowed, Run, Runs

STOPPED = f"failed with exit code {ExitCode.RESUME.value} "
"""What the Job controller says of a pod that has written its checkpoint."""


def events_about(runs: Runs, run: Run, pods: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """All that are kept, the newest first. A user who may not read them gets none."""
    path = f"/api/v1/namespaces/{run.namespace}/events"
    names = {run.name, run.checkpoints_claim, checkpoints_claim_name(run.name), *(p["metadata"]["name"] for p in pods)}
    names |= {str(step.get("job")) for step in run.status.get("steps") or ()}
    try:
        found = [event for event in runs.api.items(path) if (event.get("involvedObject") or {}).get("name") in names]
    except NotAllowed:
        return []
    return sorted(found, key=moment, reverse=True)


def warnings_about(runs: Runs, run: Run, pods: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Warnings of what is there now; the run's own stand in its status anyway, and a pod that was told to stop is none."""
    return [
        event
        for event in events_about(runs, run, pods)
        if event.get("type") == "Warning"
        and (event.get("involvedObject") or {}).get("kind") != "TrainingRun"
        and STOPPED not in str(event.get("message"))
    ]


def moment(event: Mapping[str, Any]) -> str:
    """When it happened last."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
