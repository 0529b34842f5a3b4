"""From events to the keys of schedules: which schedule an event is about, and whether it says anything new.

A schedule's own status changes are dropped, and of its runs only that they came, ended or went is of interest: their
progress is written every few seconds.
"""

from collections.abc import Mapping
from typing import Any

from trainyard.api.schedule.trainingschedule import SCHEDULE_LABEL
from trainyard.controller.loop.inbox import SOON, Key, Keys


class ScheduleInbox:
    """Takes the watch engine's events."""

    def __init__(self, *, queue: Keys) -> None:
        self._queue = queue
        self._schedules: dict[Key, tuple[Any, ...]] = {}
        self._runs: dict[str, str] = {}  # uid: state

    def schedule_event(self, type_: str | None, schedule: Mapping[str, Any]) -> None:
        """A TrainingSchedule was listed (None), ADDED, MODIFIED or DELETED."""
        metadata = schedule["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if type_ == "DELETED":
            self._schedules.pop(key, None)
            self._queue.add(key, urgent=True)
            return
        meaning = (
            metadata["uid"],
            metadata.get("generation"),
            metadata.get("deletionTimestamp"),
            tuple(sorted((metadata.get("annotations") or {}).items())),
        )
        if type_ is None or self._schedules.get(key) != meaning:
            self._schedules[key] = meaning
            self._queue.add(key, urgent=True)

    def run_event(self, type_: str | None, run: Mapping[str, Any]) -> None:
        """A TrainingRun was listed (None), ADDED, MODIFIED or DELETED."""
        metadata = run["metadata"]
        schedule = (metadata.get("labels") or {}).get(SCHEDULE_LABEL)
        if schedule is None:
            return
        state, uid = (run.get("status") or {}).get("state") or "", metadata["uid"]
        if type_ == "DELETED":
            self._runs.pop(uid, None)
        elif self._runs.get(uid) == state:
            return
        else:
            self._runs[uid] = state
        self._queue.add_after((metadata["namespace"], schedule), SOON)
