"""What people see of runs: lists, one screen, explanations; at eighty columns, letter by letter."""

import json
import sys
from typing import Any

import pytest
import yaml

from tests.unit.cli import runs
from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import FakeCluster
from tests.unit.cli.golden import same_as
from trainyard.api.conditions import Reason
from trainyard.cli.reasons import ADVICE


@pytest.fixture
def lab(cluster: FakeCluster) -> FakeCluster:
    """Four runs, each in another state."""
    for state in (runs.training, runs.failed, runs.succeeded, runs.waiting):
        state(cluster)
    return cluster


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty columns."""
    for module in ("columns", "printing"):
        monkeypatch.setattr(f"trainyard.cli.{module}.terminal_width", lambda: 80)


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "list -o name",
        "list --state failed",
        "status runbook",
        "status served",
        "status broken",
        "status queued",
        "explain runbook",
        "explain broken",
        "explain queued",
        "explain served",
    ],
)
def test_at_eighty_columns_it_looks_like_this(words: str, lab: FakeCluster, terminal: None) -> None:
    result = call(*words.split())
    assert (result.exit_code, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    same_as(words.replace(" ", "_").replace("--", ""), result.stdout)


def test_a_pipe_gets_every_column_whole(lab: FakeCluster) -> None:
    same_as("list_piped", call("list").stdout)
    same_as("list_piped_wide", call("list", "-o", "wide").stdout)


def test_json_and_yaml_are_what_the_api_server_has(lab: FakeCluster) -> None:
    assert json.loads(call("status", "runbook", "-o", "json").stdout) == lab.read("runbook")
    assert yaml.safe_load(call("status", "runbook", "-o", "yaml").stdout) == lab.read("runbook")
    names = [item["metadata"]["name"] for item in json.loads(call("list", "-o", "json").stdout)["items"]]
    assert names == ["broken", "queued", "runbook", "served"]


def test_all_namespaces_are_told_apart(lab: FakeCluster) -> None:
    lines = call("list", "-A").stdout.splitlines()
    assert lines[0].startswith("NAMESPACE   NAME ")
    assert all(line.startswith("lab ") for line in lines[1:])
    assert any("/trainyard.dev/v1alpha1/trainingruns" in target for _, target, _ in lab.asked)


def test_cost_of_each_run_by_agent_and_by_month(cluster: FakeCluster) -> None:
    def run(name: str, agent: str, month: str, **cost: str) -> None:
        spec = {"owner": {"agent": agent}, "cost": {"limit": 12}} if agent else {}
        cluster.run(name, spec=spec, state="Succeeded", startTime=f"{month}-03T10:00:00Z", cost=cost)

    run("one", "sre", "2026-03", gpuHours="1.5", hourlyRate="2", currency="EUR", actual="3")
    run("two", "sre", "2026-04", gpuHours="0.26", hourlyRate="2", currency="EUR", actual="0.52", estimated="4")
    run("three", "", "2026-04", gpuHours="7")
    cluster.run("free", state="Succeeded")
    printed = [line.split() for line in call("list", "--cost").stdout.splitlines()]
    assert printed == [
        ["NAME", "AGENT", "STATE", "GPU-HOURS", "ACTUAL", "ESTIMATED", "LIMIT"],
        ["one", "sre", "Succeeded", "1.50", "3.00", "EUR", "12.00", "EUR"],
        ["three", "-", "Succeeded", "7.00"],
        ["two", "sre", "Succeeded", "0.26", "0.52", "EUR", "4.00", "EUR", "12.00", "EUR"],
        [],
        ["AGENT", "RUNS", "GPU-HOURS", "ACTUAL"],
        ["-", "1", "7.00"],
        ["sre", "2", "1.76", "3.52", "EUR"],
        [],
        ["MONTH", "RUNS", "GPU-HOURS", "ACTUAL"],
        ["2026-03", "1", "1.50", "3.00", "EUR"],
        ["2026-04", "1", "7.00"],
        ["2026-04", "1", "0.26", "0.52", "EUR"],
    ]


def test_cost_is_a_table_of_runs_alone(cluster: FakeCluster) -> None:
    assert call("list", "--cost", "--watch").exit_code == 2
    assert call("list", "--cost").stdout.startswith("no runs")
    cluster.run("free", state="Succeeded")
    assert call("list", "--cost").stdout == "none of the runs asks for GPUs or has a price\n"


def test_a_selector_is_the_api_servers_to_apply(lab: FakeCluster) -> None:
    assert len(call("list", "-l", "agent=sre", "-o", "name").stdout.splitlines()) == 4
    assert call("list", "-l", "agent=none").stdout == "no runs in namespace lab; trainyard list -A looks everywhere\n"


def test_colours_are_for_terminals_that_want_them(lab: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in call("list").stdout
    monkeypatch.setattr("trainyard.cli.printing.sys", _Terminal)
    assert "\x1b[31mFailed" in call("list").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in call("list").stdout


class _Terminal:
    """`sys`, with a terminal to write to."""

    class stdout:
        @staticmethod
        def isatty() -> bool:
            return True

        @staticmethod
        def fileno() -> int:
            return sys.__stdout__.fileno() if sys.__stdout__ else 1


def test_schedules_are_listed_as_well(cluster: FakeCluster) -> None:
    cluster.put(
        "/apis/trainyard.dev/v1alpha1/namespaces/lab/trainingschedules/agents",
        {
            "metadata": {"name": "agents", "namespace": "lab", "uid": "u", "creationTimestamp": "2026-03-01T11:00:00Z"},
            "spec": {"schedule": "0 0 * * *"},
            "status": {"state": "Scheduled", "nextScheduleTime": "2026-03-02T00:00:00Z"},
        },
    )
    same_as("list_schedules", call("list", "--schedules").stdout)


SWEEP: dict[str, Any] = {
    "metadata": {"name": "tune", "namespace": "lab", "uid": "u", "creationTimestamp": "2026-03-01T11:00:00Z"},
    "spec": {
        "objective": {"metric": "eval_loss", "direction": "Minimize"},
        "parameters": [{"name": "training.learningRate"}, {"name": "training.seed"}],
    },
    "status": {
        "state": "Running",
        "message": "1 of 6 trials under way",
        "summary": "5/6",
        "best": {"number": 3, "run": "tune-3", "value": "2.1"},
        "trials": [
            {"number": 1, "run": "tune-1", "state": "Stopped", "value": "3.1", "rung": 10},
            {"number": 2, "run": "tune-2", "state": "Failed", "message": "the loss is not a number at step 4"},
            {"number": 3, "run": "tune-3", "state": "Succeeded", "value": "2.1", "rung": 30},
            {"number": 4, "run": "tune-4", "state": "Stopped", "value": "2.2", "rung": 30},
            {"number": 5, "run": "tune-5", "state": "Succeeded", "value": "2.4", "rung": 30},
            {"number": 6, "run": "tune-6", "state": "Running"},
        ],
    },
}
for _trial in SWEEP["status"]["trials"]:
    _trial["assignments"] = {"training.learningRate": f"0.00{_trial['number']}", "training.seed": "1"}


def test_sweeps_are_listed_and_their_trials_ranked(cluster: FakeCluster) -> None:
    cluster.put("/apis/trainyard.dev/v1alpha1/namespaces/lab/trainingsweeps/tune", SWEEP)
    same_as("list_sweeps", call("list", "--sweeps").stdout)
    same_as("sweep", call("sweep", "tune").stdout)
    assert json.loads(call("sweep", "tune", "-o", "json").stdout) == SWEEP


def test_the_largest_comes_first_where_more_is_better(cluster: FakeCluster) -> None:
    upwards = {**SWEEP, "spec": {**SWEEP["spec"], "objective": {"metric": "accuracy", "direction": "Maximize"}}}
    cluster.put("/apis/trainyard.dev/v1alpha1/namespaces/lab/trainingsweeps/tune", upwards)
    rows = [line.split()[0] for line in call("sweep", "tune").stdout.splitlines() if line.startswith("tune-")]
    assert rows == ["tune-5", "tune-3", "tune-4", "tune-1", "tune-2", "tune-6"]


def test_a_sweep_that_is_not_there_is_named(cluster: FakeCluster) -> None:
    result = call("sweep", "tune")
    assert result.exit_code == 3
    assert "there is no TrainingSweep 'tune' in namespace lab" in result.stderr


def test_a_run_that_no_operator_has_seen_sends_to_the_doctor(cluster: FakeCluster) -> None:
    cluster.run()
    cluster.read()["status"] = {"restarts": 0}
    said = " ".join(call("explain", "runbook").stdout.split())
    assert "no operator has looked at it yet; it was created 10m0s ago" in said
    assert "trainyard doctor" in said


@pytest.mark.parametrize(("code", "told"), [(75, False), (65, True)])
def test_a_pod_that_was_told_to_stop_is_no_warning(cluster: FakeCluster, code: int, told: bool) -> None:
    runs.training(cluster)
    message = f"Container trainer for pod lab/x failed with exit code {code} matching FailJob rule at index 1"
    event = {
        "metadata": {"name": "e", "namespace": "lab"},
        "type": "Warning",
        "reason": "PodFailurePolicy",
        "message": message,
        "involvedObject": {"kind": "Job", "name": "runbook-prepare-1"},
        "lastTimestamp": "2026-03-01T12:09:58Z",
    }
    cluster.put("/api/v1/namespaces/lab/events/e", event)
    assert ("PodFailurePolicy" in call("status", "runbook").stdout) is told


def test_memory_is_told_in_a_size_that_people_read(cluster: FakeCluster) -> None:
    runs.training(cluster)
    cluster.read()["status"]["trainerStatus"]["metrics"] = [{"name": "memory_bytes", "value": "600690688"}]
    assert "memory 601 MB" in call("status", "runbook").stdout


def test_a_pod_that_is_silent_is_told(cluster: FakeCluster) -> None:
    runs.training(cluster)
    cluster.read()["status"]["trainerStatus"]["lastUpdatedTime"] = "2026-03-01T11:50:00Z"
    assert "Its pod has not reported for 20m0s" in call("explain", "runbook").stdout


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    means, do = ADVICE[reason]
    assert means
    assert not means.endswith(".")
    assert do.format(called="trainyard", run="a", where=" -n lab").count("{") == 0


def test_a_reason_of_a_newer_operator_is_no_error(cluster: FakeCluster) -> None:
    cluster.run(state="Pending", conditions=[runs.condition("Ready", "False", "StarsAreWrong")])
    said = call("explain", "runbook")
    assert said.exit_code == 0
    assert "the operator says StarsAreWrong" in said.stdout
