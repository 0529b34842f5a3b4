"""What Prometheus sees of single models: loss and GPU use of their trainings, and what their evaluation has found.

These series carry words that a run's author chose: whose model it is, its name, its version. So that they cannot grow without
end, the newest runs alone have any, each a bounded number, and they go with the run. `metrics.perModel` of the chart leaves
them out. Whoever makes runs can write any name: what two runs say under the same name is told of the newer one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trainyard.api.conditions import State
from trainyard.api.run.status import Metric as Told
from trainyard.api.run.status import TrainingRunStatus
from trainyard.api.run.versioning import values_of
from trainyard.api.texts import one_line
from trainyard.controller.manifests.metadata import RunRef

Key = tuple[str, str]
Labels = tuple[str, ...]

RUNS_KEPT = 100
"""The newest that have something to tell. All of it is written in the operator's own loop whenever somebody reads it."""
METRICS_KEPT = 16
"""Of an evaluation: more than any of ours has. A script may report as many as it likes."""
LABEL_LENGTH = 128
LABELS = ("agent", "model", "version")

GAUGES = {
    "trainyard_training_loss": "Newest loss of the training.",
    "trainyard_validation_loss": "Newest loss of the held-out records during the training.",
    "trainyard_gpu_utilization_percent": "How busy the GPU is, of trainings under way whose pods report it.",
    "trainyard_model_accuracy": "Share of held-out records that the evaluated model answers exactly (exactMatch).",
    "trainyard_model_gpu_hours": "Hours of GPUs that went into the model: of its run.",
    "trainyard_model_created_timestamp_seconds": "When the run of an evaluated model was made: tells an agent's newest.",
}
METRIC = "trainyard_model_metric"
_OF_THE_TRAINING = {"loss": "trainyard_training_loss", "eval_loss": "trainyard_validation_loss"}
_WHILE_TRAINING = {"gpu_utilization_percent": "trainyard_gpu_utilization_percent"}
_ACCURACY = ("exactMatch", "accuracy", "exact")
"""Names of the same: of language models, of scripts, of Tiny Recursive Models."""


@dataclass(frozen=True)
class _Run:
    """What one run has to tell."""

    uid: str
    created: str
    labels: Labels
    gauges: Mapping[str, float] = field(default_factory=dict)
    """By gauge."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """By name, of the evaluation."""

    @property
    def age(self) -> tuple[str, str]:
        return (self.created, self.uid)


class ModelMetrics(Collector):
    """Remembers the newest numbers of the newest runs, and tells them when it is read."""

    def __init__(self) -> None:
        self._runs: dict[Key, _Run] = {}

    def run_known(self, run: RunRef, status: TrainingRunStatus) -> None:
        """A run stands like this."""
        key = (run.namespace, run.name)
        if key not in self._runs and len(self._runs) >= RUNS_KEPT and (run.created, run.uid) < self._oldest().age:
            return
        gauges, metrics = _gauges(status), _metrics(status)
        if metrics and run.created:
            gauges["trainyard_model_created_timestamp_seconds"] = datetime.fromisoformat(run.created).timestamp()
        if not gauges and not metrics:
            self._runs.pop(key, None)
            return
        known = self._runs.get(key)
        labels = known.labels if known and known.uid == run.uid else _labels(run)
        self._runs[key] = _Run(run.uid, run.created, labels, gauges, metrics)
        if len(self._runs) > RUNS_KEPT:
            oldest = self._oldest()
            self._runs = {key: one for key, one in self._runs.items() if one is not oldest}

    def _oldest(self) -> _Run:
        return min(self._runs.values(), key=lambda one: one.age)

    def run_gone(self, key: Key) -> None:
        """A run has been deleted."""
        self._runs.pop(key, None)

    def only_runs(self, there: set[Key]) -> None:
        """These are all the runs that exist."""
        for key in self._runs.keys() - there:
            del self._runs[key]

    def collect(self) -> Iterable[Metric]:
        gauges: dict[str, dict[Labels, float]] = {name: {} for name in GAUGES}
        metrics: dict[Labels, float] = {}
        for run in sorted(self._runs.values(), key=lambda r: r.age):  # the newest last, over those before it
            for name, value in run.gauges.items():
                gauges[name][run.labels] = value
            for name, value in run.metrics.items():
                metrics[*run.labels, name] = value
        for name, description in GAUGES.items():
            yield _family(name, description, LABELS, gauges[name])
        yield _family(METRIC, "What the evaluation has found, by metric.", (*LABELS, "metric"), metrics)


def _family(name: str, description: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, description, labels=labels)
    for of, value in values.items():
        family.add_metric(of, value)
    return family


def _labels(run: RunRef) -> Labels:
    """As the placeholders {agent}, {model} and {version} of exports."""
    values = values_of(metadata=run.metadata, spec=run.spec)
    return tuple(one_line(values[name], limit=LABEL_LENGTH) for name in LABELS)


def _gauges(status: TrainingRunStatus) -> dict[str, float]:
    trainer = status.trainer_status.metrics if status.trainer_status else None
    names = _OF_THE_TRAINING | (_WHILE_TRAINING if status.state == State.TRAINING else {})
    found = {names[name]: value for name, value in _numbers(trainer) if name in names}
    accuracy = dict(_numbers(status.evaluation.metrics if status.evaluation else None))
    if name := next((name for name in _ACCURACY if name in accuracy), None):
        found["trainyard_model_accuracy"] = accuracy[name]
    if status.cost is not None:
        found["trainyard_model_gpu_hours"] = float(status.cost.gpu_hours)
    return found


def _metrics(status: TrainingRunStatus) -> dict[str, float]:
    found = _numbers(status.evaluation.metrics if status.evaluation else None)
    return {one_line(name, limit=LABEL_LENGTH): value for name, value in found[:METRICS_KEPT]}


def _numbers(metrics: Iterable[Told] | None) -> list[tuple[str, float]]:
    """Those that are numbers; nan is one."""
    found = []
    for metric in metrics or ():
        try:
            found.append((metric.name, float(metric.value)))
        except ValueError:
            continue
    return found
