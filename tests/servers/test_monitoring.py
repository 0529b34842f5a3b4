"""The operator's own metrics in a real Prometheus: every query of the chart's rules and dashboard, and the alerts in time.

The dashboard is read by Grafana's own library, which knows each field of the format; what it does not know it drops.
"""

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIServer

import pytest
import yaml
from prometheus_client import start_http_server

from tests.chart.conftest import Render, helm, render
from tests.chart.monitoring import DASHBOARD, LIMITS, QUEUE, listed, panels, rules
from tests.ports import free_port
from tests.servers.restartable import Server, grafana_python, prometheus, prometheus_tools, until
from tests.unit.controller.test_run_metrics import NAMING, ended, run, told
from trainyard.api.run.status import TrainingRunStatus
from trainyard.api.schedule.status import TrainingScheduleStatus
from trainyard.controller.metrics import Metrics
from trainyard.controller.schedules.metrics import ScheduleMetrics

pytestmark = pytest.mark.servers
__all__ = ["helm", "render"]  # fixtures

PLACEHOLDERS = {"$agent": ".*", "$model": ".*", "$__rate_interval": "1m", "$__range": "1h"}
GPU = {"resources": {"limits": {"example.com/gpu": 4}}}


class Operator:
    """The metrics of an operator, which lives through what its tests want."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.schedules = ScheduleMetrics(self.metrics.registry)
        for name in QUEUE:
            self.metrics.gauge(name, "Of the queue.", lambda: 1.0)

    def idle(self) -> None:
        """Before anything has happened, but for what makes series that begin with their first event."""
        self.metrics.leading(True)
        self._day()

    def busy(self) -> None:
        """The same again, so that counters move between two scrapes."""
        self._day()

    def _day(self) -> None:
        for state in ("Succeeded", "Succeeded", "Succeeded", "Failed"):
            self._train(state)
        self.metrics.reconciled(seconds=0.01, error=None)
        self.metrics.reconciled(seconds=0.01, error=KeyError("bug"))
        self.metrics.api_request("get", "jobs", 200, 0.01)
        self.metrics.progress_report("trainyard", "new")
        self.metrics.alert("slack", "GivenUp")
        counts = {"runs": {"created": 1, "missed": 1}}
        self.schedules.schedule_written(
            "ns", "weekly", TrainingScheduleStatus(), TrainingScheduleStatus.model_validate(counts)
        )

    def _train(self, state: str) -> None:
        one = run("alpha", **NAMING, **GPU)
        old = {"state": "Training", "training": {"loss": 2.0, "eval_loss": 2.1, "gpu_utilization_percent": 93}}
        before = told(**old)
        self.metrics.status_written("ns", "beta", TrainingRunStatus(), before, run("beta", **NAMING))
        attempt = {"number": 1, "state": state, "node": "arcanine", "podStartTime": "2026-01-01T00:00:00Z"}
        attempt |= {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:30:00Z"}
        attempt |= {"reason": "Killed", "counted": True} if state == "Failed" else {}
        after = ended(state, seconds=1800).model_copy(
            update={
                "steps": told(steps=[{"name": "train", "state": state, "attempts": [attempt]}]).steps,
                "evaluation": told(
                    evaluation={"exactMatch": 0.75, "commandAccuracy": 0.5, "latencyP50Seconds": 0.2}
                ).evaluation,
            }
        )
        self.metrics.status_written("ns", "alpha", before, after, one)


@pytest.fixture(scope="module")
def rule_file(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(rules(render, *LIMITS)))
    return path


@pytest.fixture(scope="module")
def server(rule_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Prometheus that has scraped the operator before and after a busy time."""
    operator, port = Operator(), free_port()
    operator.idle()
    served: tuple[WSGIServer, threading.Thread] = start_http_server(
        port, "127.0.0.1", registry=operator.metrics.registry
    )
    try:
        with prometheus(tmp_path_factory.mktemp("prometheus"), target=port, rules=[rule_file]) as running:
            until(lambda: samples(running, "trainyard_leader") >= 2, seconds=30, what=lambda: "scraped once")
            operator.busy()
            until(
                lambda: bool(answer(running, 'increase(trainyard_runs_ended_total{result="Failed"}[1h]) > 0')),
                seconds=30,
                what=lambda: "nothing has moved",
            )
            yield running
    finally:
        served[0].shutdown()
        served[0].server_close()


def answer(server: Server, query: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{server.url}/api/v1/query?{urlencode({'query': query})}") as said:
        return list(json.load(said)["data"]["result"])


def samples(server: Server, name: str) -> float:
    found = answer(server, f"count_over_time({name}[1h])")
    return float(found[0]["value"][1]) if found else 0


def number(server: Server, query: str) -> float:
    (one,) = answer(server, query)
    return float(one["value"][1])


@pytest.mark.parametrize(("title", "expression"), list(panels()))
def test_every_query_of_the_dashboard_is_answered(title: str, expression: str, server: Server) -> None:
    for placeholder, text in PLACEHOLDERS.items():
        expression = expression.replace(placeholder, text)
    assert answer(server, expression), f"{title}: nothing"


def test_the_choices_of_the_dashboard_are_there(server: Server) -> None:
    for name, wanted in (("agent", "agent-sre"), ("model", "agent-sre-functiongemma")):
        query = urlencode({"match[]": "trainyard_training_loss"})
        with urllib.request.urlopen(f"{server.url}/api/v1/label/{name}/values?{query}") as said:
            assert json.load(said)["data"] == [wanted]


def test_every_rule_is_evaluated_without_a_fault(server: Server, render: Render) -> None:
    def found() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{server.url}/api/v1/rules") as said:
            return [rule for group in json.load(said)["data"]["groups"] for rule in group["rules"]]

    groups = rules(render, *LIMITS)
    until(lambda: all(r["health"] == "ok" for r in found()), seconds=30, what=lambda: str(found()))
    assert {r["name"] for r in found()} == listed(groups, "record").keys() | listed(groups, "alert").keys()


def test_the_three_questions_of_a_pipeline_have_answers(server: Server) -> None:
    """How fast runs succeed, how long the slowest trainings take, how good the newest model of an agent is."""
    assert number(server, 'rate(trainyard_runs_ended_total{result="Succeeded"}[5m])') > 0
    comes(server, 'trainyard:runs_ended:rate5m{result="Succeeded"} > 0')
    buckets = 'trainyard_attempt_duration_seconds_bucket{step="train",state="Succeeded"}'
    assert 900 < number(server, f"histogram_quantile(0.95, sum by (le) (rate({buckets}[5m])))") <= 3600
    comes(server, "trainyard:train_duration_seconds:p95_1d > 900 and trainyard:train_duration_seconds:p95_1d <= 3600")
    assert number(server, 'trainyard_model_accuracy{agent="agent-sre"}') == 0.75
    comes(server, 'trainyard:model_accuracy:newest{agent="agent-sre"} == 0.75')


def test_shares_and_sums(server: Server) -> None:
    comes(server, "trainyard:runs_succeeded:ratio1d == 0.75")
    assert number(server, 'trainyard_gpu_seconds_total{state="Failed"}') == 2 * 1800 * 4
    comes(server, "abs(trainyard:run_duration_seconds:mean1d - 1800) < 1")
    comes(server, 'ALERTS{alertname="TrainyardAccuracyIsLow",agent="agent-sre"}')
    comes(server, 'ALERTS{alertname="TrainyardAlertsAreNotTold",receiver="slack"}')


def comes(server: Server, query: str) -> None:
    """Rules follow a second later."""
    until(lambda: bool(answer(server, query)), seconds=30, what=lambda: f"{query} is never so")


def promtool(*words: str) -> None:
    done = subprocess.run([str(prometheus_tools() / "promtool"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_no_fault_in_the_rules(rule_file: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(rule_file))


def series(name: str, values: str) -> dict[str, str]:
    return {"series": name, "values": values}


BUCKET = 'trainyard_attempt_duration_seconds_bucket{step="train",state="Succeeded",le="%s"}'
ACCURACY = '{agent="sre",model="m",version="%s"}'
CASES = {
    "an operator that is away for six minutes": (
        [series("trainyard_leader", "1 1 0x10")],
        [("TrainyardNotWorking", "4m", 0), ("TrainyardNotWorking", "9m", 1)],
    ),
    "two of three runs fail": (
        [
            series('trainyard_runs_ended_total{result="Succeeded"}', "0 1x60"),
            series('trainyard_runs_ended_total{result="Failed"}', "0 2x60"),
            series('trainyard_runs_ended_total{result="Cancelled"}', "0 9x60"),
        ],
        [("TrainyardRunsFail", "30m", 1)],
    ),
    "one failure is none of the operator's": (
        [
            series('trainyard_runs_ended_total{result="Succeeded"}', "0x60"),
            series('trainyard_runs_ended_total{result="Failed"}', "0 1x60"),
        ],
        [("TrainyardRunsFail", "30m", 0)],
    ),
    "no run at all": (
        [
            series('trainyard_runs_ended_total{result="Succeeded"}', "0x60"),
            series('trainyard_runs_ended_total{result="Failed"}', "0x60"),
        ],
        [("TrainyardRunsFail", "30m", 0)],
    ),
    "trainings of four hours": (
        [
            series(BUCKET % "3600", "0x60"),
            series(BUCKET % "14400", "0 5x60"),
            series(BUCKET % "+Inf", "0 5x60"),
        ],
        [("TrainyardTrainingIsSlow", "30m", 1)],
    ),
    "trainings within the hour": (
        [
            series(BUCKET % "3600", "0 5x60"),
            series(BUCKET % "14400", "0 5x60"),
            series(BUCKET % "+Inf", "0 5x60"),
        ],
        [("TrainyardTrainingIsSlow", "30m", 0)],
    ),
    "the newest model is worse than the one before": (
        [
            series(f"trainyard_model_accuracy{ACCURACY % 'v1'}", "0.9x60"),
            series(f"trainyard_model_created_timestamp_seconds{ACCURACY % 'v1'}", "100x60"),
            series(f"trainyard_model_accuracy{ACCURACY % 'v2'}", "0.4x60"),
            series(f"trainyard_model_created_timestamp_seconds{ACCURACY % 'v2'}", "200x60"),
        ],
        [("TrainyardAccuracyIsLow", "30m", 1)],
    ),
    "an old model was bad and the newest one is not": (
        [
            series(f"trainyard_model_accuracy{ACCURACY % 'v1'}", "0.4x60"),
            series(f"trainyard_model_created_timestamp_seconds{ACCURACY % 'v1'}", "100x60"),
            series(f"trainyard_model_accuracy{ACCURACY % 'v2'}", "0.9x60"),
            series(f"trainyard_model_created_timestamp_seconds{ACCURACY % 'v2'}", "200x60"),
        ],
        [("TrainyardAccuracyIsLow", "30m", 0)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_alerts_fire_when_they_should_and_only_then(case: str, rule_file: Path, tmp_path: Path) -> None:
    """By promtool, which counts the alerts that fire at a moment of the made up time."""
    given, expected = CASES[case]
    if "leader" not in str(given):
        given = [*given, series("trainyard_leader", "1x60")]
    checks = [
        {
            "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
            "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": fires}],
        }
        for name, at, fires in expected
    ]
    tests = tmp_path / "tests.yaml"
    one = {"interval": "1m", "input_series": given, "promql_expr_test": checks}
    tests.write_text(yaml.safe_dump({"rule_files": [str(rule_file)], "evaluation_interval": "1m", "tests": [one]}))
    promtool("test", "rules", str(tests))


READ = """
import json, sys
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
register_default_plugins()
print(JSONEncoder().encode(Dashboard.from_json(json.load(open(sys.argv[1])))))
"""


def test_grafanas_own_library_knows_every_field_of_the_dashboard() -> None:
    python = str(grafana_python())
    read = subprocess.run([python, "-c", READ, str(DASHBOARD)], capture_output=True, text=True, check=True).stdout
    assert list(lost(json.loads(DASHBOARD.read_text()), json.loads(read))) == []


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where the second is not what the first is; it may have more."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            yield from lost(value, kept[name], f"{path}.{name}") if name in kept else [f"{path}.{name} is not known"]
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif given != kept:
        yield f"{path}: {given!r} became {kept!r}"
