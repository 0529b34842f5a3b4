"""What Prometheus sees of sweeps. Nothing is labelled with a sweep's name; what a single one does is in its status."""

from prometheus_client import CollectorRegistry, Counter, Gauge

_RESULTS = ("created", "stopped", "succeeded", "failed", "cancelled")


class SweepMetrics:
    """Counts trials."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._trials = Counter(
            "trainyard_sweep_trials_total",
            "Trials of sweeps: created; stopped before their end; succeeded, failed, cancelled.",
            ["result"],
            registry=registry,
        )
        for result in _RESULTS:  # there from the start, so that increase() sees the first one
            self._trials.labels(result)
        self._known: set[tuple[str, str]] = set()
        sweeps = Gauge("trainyard_sweeps", "Sweeps that exist.", registry=registry)
        sweeps.set_function(lambda: len(self._known))

    def trial(self, result: str) -> None:
        """Something has become of a trial."""
        self._trials.labels(result).inc()

    def seen(self, namespace: str, name: str) -> None:
        """A sweep exists."""
        self._known.add((namespace, name))

    def gone(self, namespace: str, name: str) -> None:
        """A sweep has been deleted."""
        self._known.discard((namespace, name))
