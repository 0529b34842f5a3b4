"""What Prometheus sees.

Nothing is labelled with the name of a run or with anything else that its author chose, but for the gauges of single models
(`model_metrics.py`), which are bounded, go with their runs and can be left out: a metric that grows with every run ever made is
a leak in two processes. What a single run does stands in its status.
"""

import importlib.metadata
import platform
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trainyard.api.conditions import Reason
from trainyard.api.run.notifications import Notification
from trainyard.api.run.status import Attempt, TrainingRunStatus
from trainyard.api.steps import base_of
from trainyard.controller.kube import errors
from trainyard.controller.manifests.metadata import RunRef
from trainyard.controller.model_metrics import ModelMetrics
from trainyard.controller.run_metrics import RunMetrics

Key = tuple[str, str]

_REASONS = frozenset(Reason) | {"Succeeded", "Failed", "Stopped"}
"""Of attempts: why they ended, or how, where that says all."""
_STEP_BUCKETS = (5, 15, 30, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)
_API_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)
_LOOK_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)


class Metrics:
    """All metrics of the operator, on a registry of their own. Also the reconciler's witness of written statuses."""

    def __init__(self, *, per_model: bool = True) -> None:
        """`per_model`: whether single models have gauges, labelled with words of their authors."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        r = self.registry
        self._reconciles = Counter("trainyard_reconciles_total", "Looks at a run, by result.", ["result"], registry=r)
        self._reconcile_seconds = Histogram(
            "trainyard_reconcile_duration_seconds", "How long a look takes.", registry=r, buckets=_LOOK_BUCKETS
        )
        self._api_requests = Counter(
            "trainyard_api_requests_total",
            "Requests to the API server; code 0 is no answer.",
            ["verb", "resource", "code"],
            registry=r,
        )
        self._api_seconds = Histogram(
            "trainyard_api_request_duration_seconds",
            "Time until the API server has answered.",
            ["verb"],
            registry=r,
            buckets=_API_BUCKETS,
        )
        self._progress = Counter(
            "trainyard_progress_reports_total",
            "Reports of pods, by format and result.",
            ["format", "result"],
            registry=r,
        )
        self._dropped = Counter(
            "trainyard_connections_dropped_total",
            "Connections closed without an answer: too many of one address, in all, or not done by the deadline.",
            ["port", "why"],
            registry=r,
        )
        self._alerts = Counter(
            "trainyard_alerts_total",
            "Alerts of runs, by kind of receiver and result; Later is a try that is repeated.",
            ["receiver", "result"],
            registry=r,
        )
        for kind in get_args(Notification.model_fields["type"].annotation):
            for result in ("Refused", "GivenUp"):  # there from the start, so that increase() sees the first one
                self._alerts.labels(kind.lower(), result)
        self._attempts = Counter(
            "trainyard_attempts_total",
            "Attempts that have ended; counted tells whether they count against backoffLimit.",
            ["step", "state", "reason", "counted"],
            registry=r,
        )
        self._step_seconds = Histogram(
            "trainyard_attempt_duration_seconds",
            "From the making of an attempt's Job to its end.",
            ["step", "state"],
            registry=r,
            buckets=_STEP_BUCKETS,
        )
        self._leading = Gauge("trainyard_leader", "1 while this process holds the Lease.", registry=r)
        build = Gauge("trainyard_build_info", "1; the labels tell what runs.", ["version", "python"], registry=r)
        build.labels(_version(), platform.python_version()).set(1)
        self._states: dict[Key, str] = {}
        self._ended = RunMetrics(r)
        self._models = ModelMetrics()
        if per_model:
            r.register(self._models)
        r.register(_Live(lambda: _by_state(self._states.values())))

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """A gauge that is computed when it is read."""
        Gauge(name, description, registry=self.registry).set_function(value)

    # Called by the queue, the transport, the receiver, the lease

    def reconciled(self, *, seconds: float, error: BaseException | None) -> None:
        """A look at a run has ended."""
        if error is None:
            result = "ok"
        elif isinstance(error, errors.ClusterError):
            result = type(error).__name__.lower()
        else:
            result = "error"
        self._reconciles.labels(result).inc()
        self._reconcile_seconds.observe(seconds)

    def api_request(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """The API server has answered, or has not (code 0)."""
        self._api_requests.labels(verb, resource, str(code)).inc()
        self._api_seconds.labels(verb).observe(seconds)

    def progress_report(self, wire_format: str, result: str) -> None:
        """A pod has reported."""
        self._progress.labels(wire_format, result).inc()

    def connection_dropped(self, port: str, why: str) -> None:
        """A connection took, or would have taken, more than it may."""
        self._dropped.labels(port, why).inc()

    def alert(self, kind: str, result: str) -> None:
        """An alert has arrived, or has not."""
        self._alerts.labels(kind, result).inc()

    def leading(self, holds: bool) -> None:
        """Whether this process holds the Lease."""
        self._leading.set(1 if holds else 0)

    # What is known of the runs

    def run_seen(self, namespace: str, name: str, state: str) -> None:
        """A run exists and stands like this."""
        self._states[namespace, name] = state or "New"

    def run_gone(self, namespace: str, name: str) -> None:
        """A run has been deleted."""
        self._states.pop((namespace, name), None)
        self._models.run_gone((namespace, name))

    def only_runs(self, there: set[Key]) -> None:
        """These are all the runs that exist; what else is known was deleted while nobody watched."""
        for key in self._states.keys() - there:
            del self._states[key]
        self._models.only_runs(there)

    def run_known(self, run: RunRef, status: TrainingRunStatus) -> None:
        """A run has been looked at; after a restart that is how its numbers come back."""
        self._models.run_known(run, status)

    def status_written(
        self, namespace: str, name: str, old: TrainingRunStatus, new: TrainingRunStatus, run: RunRef | None
    ) -> None:
        """A status has changed; counts the attempts that have ended with it, and the run. Without `run` its spec is refused."""
        self.run_seen(namespace, name, new.state or "")
        self._ended.status_written(old, new)
        if run is not None:
            self._models.run_known(run, new)
        ended = {(s.name, a.number) for s in old.steps or () for a in s.attempts or () if a.state != "Running"}
        for step in new.steps or ():
            for attempt in step.attempts or ():
                if attempt.state != "Running" and (step.name, attempt.number) not in ended:
                    self._attempt_ended(step.name, attempt)
                    self._ended.attempt_ended(attempt, new.cost)

    def _attempt_ended(self, step: str, attempt: Attempt) -> None:
        # The name of a phase is free text, and each would be seventeen series until the next restart.
        kind, counted = base_of(step), str(bool(attempt.counted)).lower()
        reason = attempt.reason or attempt.state
        reason = reason if reason in _REASONS else "Other"
        self._attempts.labels(kind, attempt.state, reason, counted).inc()
        if attempt.start_time and attempt.completion_time:
            taken = datetime.fromisoformat(attempt.completion_time) - datetime.fromisoformat(attempt.start_time)
            self._step_seconds.labels(kind, attempt.state).observe(max(0.0, taken.total_seconds()))


def _version() -> str:
    try:
        return importlib.metadata.version("trainyard")
    except importlib.metadata.PackageNotFoundError:
        return "source"  # run from a checkout that is not installed


class _Live(Collector):
    """A metric that is computed when it is read."""

    def __init__(self, collect: Callable[[], Metric]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return [self._collect()]


def _by_state(states: Iterable[str]) -> Metric:
    family = GaugeMetricFamily("trainyard_runs", "Runs that exist, by state.", labels=["state"])
    for state, count in sorted(Tally(states).items()):
        family.add_metric([state], count)
    return family
