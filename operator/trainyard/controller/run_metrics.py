"""What Prometheus sees of runs that end: how, after how long, and for how many seconds they held GPUs. No word of an author."""

from datetime import datetime
from decimal import Decimal

from prometheus_client import CollectorRegistry, Counter, Histogram

from trainyard.api.conditions import State
from trainyard.api.run.status import Attempt, CostStatus, TrainingRunStatus
from trainyard.controller.runs.cost import gpu_seconds, money
from trainyard.controller.runs.status import is_finished

RESULTS = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
CURRENCIES_KEPT = 8
ENDS = ("Succeeded", "Failed", "Stopped")
"""Of an attempt."""
_BUCKETS = (60, 300, 900, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600, 72 * 3600, 168 * 3600)


class RunMetrics:
    """Counts runs when they end, and attempts by the GPUs that they held."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter("trainyard_runs_ended_total", "Runs that have ended.", ["result"], registry=registry)
        self._seconds = Histogram(
            "trainyard_run_duration_seconds",
            "From a run's first Job to its end, with all that it waited for.",
            ["result"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._gpu_seconds = Counter(
            "trainyard_gpu_seconds_total",
            "Seconds for which attempts that have ended held GPUs, times their number.",
            ["state"],
            registry=registry,
        )
        self._cost = Counter(
            "trainyard_gpu_cost_total",
            "What the GPUs of attempts that have ended cost, of runs with a known price.",
            ["currency"],
            registry=registry,
        )
        self._currencies: set[str] = set()
        # A counter that begins with its first event hides that one from increase().
        for result in RESULTS:
            self._ended.labels(result.value)
        for state in ENDS:
            self._gpu_seconds.labels(state)

    def status_written(self, old: TrainingRunStatus, new: TrainingRunStatus) -> None:
        """Counts the run if it ended with this status."""
        if is_finished(old) or not is_finished(new):
            return
        result = next((r.value for r in RESULTS if r.value == new.state), State.FAILED.value)
        self._ended.labels(result).inc()
        if new.start_time and new.completion_time:
            self._seconds.labels(result).observe(_between(new.start_time, new.completion_time))

    def attempt_ended(self, attempt: Attempt, cost: CostStatus | None) -> None:
        """An attempt has given its GPUs back, if it ever had them. `cost`: of its run."""
        if not (seconds := gpu_seconds(attempt)):
            return
        self._gpu_seconds.labels(attempt.state).inc(seconds)
        if cost is not None and cost.hourly_rate is not None:
            self._cost.labels(self._known(cost.currency or "")).inc(float(money(seconds, Decimal(cost.hourly_rate))))

    def _known(self, currency: str) -> str:
        """Authors choose the word, so there are not endlessly many."""
        if currency not in self._currencies and len(self._currencies) >= CURRENCIES_KEPT:
            return "other"
        self._currencies.add(currency)
        return currency


def _between(start: str, end: str) -> float:
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
