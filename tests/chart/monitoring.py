"""The chart's rules and dashboard as what they ask Prometheus, and the operator's metrics as what it can answer."""

import json
import re
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry

from tests.chart.conftest import CHART, Render, one
from trainyard.controller.metrics import Metrics
from trainyard.controller.schedules.metrics import ScheduleMetrics
from trainyard.controller.sweeps.metrics import SweepMetrics

DASHBOARD = CHART / "files/dashboards/trainyard.json"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
LIMITS = ("prometheusRule.maximumTrainSeconds=7200",)
QUEUE = (
    "trainyard_queue_depth",
    "trainyard_queue_running",
    "trainyard_queue_delayed",
    "trainyard_queue_oldest_seconds",
)


def operator_metrics() -> Metrics:
    """All metrics of an operator that runs, as app.py puts them together."""
    metrics = Metrics()
    ScheduleMetrics(metrics.registry)
    SweepMetrics(metrics.registry)
    for name in QUEUE:
        metrics.gauge(name, "", lambda: 0.0)
    return metrics


def names_of(registry: CollectorRegistry) -> set[str]:
    """Names under which the metrics can be asked for."""
    return {
        family.name + suffix
        for family in registry.collect()
        if family.name.startswith("trainyard_")
        for suffix in SUFFIXES[family.type]
    }


def rules(render: Render, *values: str) -> dict[str, Any]:
    """The rules as a rule file of Prometheus."""
    return dict(one(render("prometheusRule.enabled=true", *values), "PrometheusRule")["spec"])


def listed(groups: dict[str, Any], kind: str) -> dict[str, str]:
    """By name: the expression of each `record` or `alert`."""
    return {rule[kind]: rule["expr"] for group in groups["groups"] for rule in group["rules"] if kind in rule}


def panels() -> Iterator[tuple[str, str]]:
    """Title and expression of every query of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def asked(expression: str) -> set[str]:
    """Names of metrics in an expression."""
    return set(re.findall(r"\btrainyard[_:][a-z0-9_:]+", expression))
