"""From events to the keys of sweeps: which sweep an event is about, and whether it says anything new.

A sweep's own status changes are dropped. Of its runs it is of interest that they came, ended, went or were suspended, and that they
have passed a rung; their progress is written every few seconds.
"""

from collections.abc import Mapping
from typing import Any

from trainyard.api.sweep.children import rungs
from trainyard.api.sweep.trainingsweep import SWEEP_LABEL
from trainyard.controller.loop.inbox import SOON, Key, Keys


class SweepInbox:
    """Takes the watch engine's events."""

    def __init__(self, *, queue: Keys) -> None:
        self._queue = queue
        self._sweeps: dict[Key, tuple[Any, ...]] = {}
        self._rungs: dict[Key, tuple[int, ...]] = {}
        self._runs: dict[str, tuple[Any, ...]] = {}  # by uid

    def sweep_event(self, type_: str | None, sweep: Mapping[str, Any]) -> None:
        """A TrainingSweep was listed (None), ADDED, MODIFIED or DELETED."""
        metadata = sweep["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if type_ == "DELETED":
            self._sweeps.pop(key, None)
            self._rungs.pop(key, None)
            self._queue.add(key, urgent=True)
            return
        meaning = (metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp"))
        self._rungs[key] = _rungs(sweep)
        if type_ is None or self._sweeps.get(key) != meaning:
            self._sweeps[key] = meaning
            self._queue.add(key, urgent=True)

    def run_event(self, type_: str | None, run: Mapping[str, Any]) -> None:
        """A TrainingRun was listed (None), ADDED, MODIFIED or DELETED."""
        metadata, status = run["metadata"], run.get("status") or {}
        sweep = (metadata.get("labels") or {}).get(SWEEP_LABEL)
        if sweep is None:
            return
        key = (metadata["namespace"], sweep)
        step = (status.get("trainerStatus") or {}).get("step") or 0
        passed = sum(step > rung for rung in self._rungs.get(key, ()))
        meaning = (status.get("state"), passed, (run.get("spec") or {}).get("suspend"))
        if type_ == "DELETED":
            self._runs.pop(metadata["uid"], None)
        elif self._runs.get(metadata["uid"]) == meaning:
            return
        else:
            self._runs[metadata["uid"]] = meaning
        self._queue.add_after(key, SOON)


def _rungs(sweep: Mapping[str, Any]) -> tuple[int, ...]:
    """Those of a sweep as the API server has it, with defaults filled in; none where it is not as it should be."""
    asha = ((sweep.get("spec") or {}).get("earlyStopping") or {}).get("asha") or {}
    try:
        return rungs(asha["minimumSteps"], asha["reductionFactor"], asha["rungs"])
    except (KeyError, TypeError):
        return ()
