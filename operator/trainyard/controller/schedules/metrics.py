"""What Prometheus sees of schedules. Nothing is labelled with a schedule's name; what a single one does is in its status."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trainyard.api.schedule.status import CLOCK, RUN_NOW, RunCounts, TrainingScheduleStatus

_LATE_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)
_COUNTED = ("created", "succeeded", "failed", "missed", "skipped")


class ScheduleMetrics:
    """Counts starts, and how late they came."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._late = Histogram(
            "trainyard_schedule_lateness_seconds",
            "From the slot, or the moment a trigger or a person was noticed, to the run's creation.",
            ["started_by"],
            registry=registry,
            buckets=_LATE_BUCKETS,
        )
        self._runs = Counter(
            "trainyard_schedule_runs_total",
            "Runs of schedules: created, succeeded, failed; starts: missed, skipped.",
            ["result"],
            registry=registry,
        )
        for result in _COUNTED:  # there from the start, so that increase() sees the first one
            self._runs.labels(result)
        self._known: set[tuple[str, str]] = set()
        schedules = Gauge("trainyard_schedules", "Schedules that exist.", registry=registry)
        schedules.set_function(lambda: len(self._known))

    def run_made(self, *, started_by: str, late_seconds: float) -> None:
        """A run was made so long after its time."""
        kind = {CLOCK: "clock", RUN_NOW: "person"}.get(started_by, "trigger")
        self._late.labels(kind).observe(late_seconds)

    def schedule_written(
        self, namespace: str, name: str, old: TrainingScheduleStatus, new: TrainingScheduleStatus
    ) -> None:
        """A status has changed."""
        self._known.add((namespace, name))
        before, after = old.runs or RunCounts(), new.runs or RunCounts()
        for result in _COUNTED:
            more = getattr(after, result) - getattr(before, result)
            if more > 0:
                self._runs.labels(result).inc(more)

    def schedule_seen(self, namespace: str, name: str) -> None:
        """A schedule exists."""
        self._known.add((namespace, name))

    def schedule_gone(self, namespace: str, name: str) -> None:
        """A schedule has been deleted."""
        self._known.discard((namespace, name))
