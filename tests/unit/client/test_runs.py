"""The Python client: create, wait, metrics, logs, and what it costs to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.unit.cli import runs
from tests.unit.cli.fake_cluster import NAMESPACE, FakeCluster
from trainyard.client import ClientError, Fate, NotFound, Rejected, TimedOut, connect

MANIFEST = "apiVersion: trainyard.dev/v1alpha1\nkind: TrainingRun\nmetadata: {name: runbook}\nspec: {}\n"


def test_a_run_is_created_of_a_mapping_a_text_or_a_file(cluster: FakeCluster, tmp_path: Path) -> None:
    found = connect()
    assert found.namespace == NAMESPACE
    assert found.create(MANIFEST).uid == "uid-of-runbook"
    file = tmp_path / "run.yaml"
    file.write_text(MANIFEST.replace("runbook", "second"))
    assert found.create(file).name == "second"
    assert found.create({"kind": "TrainingRun", "metadata": {"name": "third"}}).name == "third"
    assert [run.name for run in found.list()] == ["runbook", "second", "third"]
    assert all("fieldValidation=Strict" in target for method, target, _ in cluster.asked if method == "POST")


def test_a_name_that_is_taken_is_rejected_with_the_api_servers_word(cluster: FakeCluster) -> None:
    cluster.run()
    with pytest.raises(Rejected) as error:
        connect().create(MANIFEST)
    assert error.value.reason == "AlreadyExists"


def test_a_dry_run_creates_nothing(cluster: FakeCluster) -> None:
    connect().create(MANIFEST, dry_run=True)
    assert connect().list() == []


def test_two_runs_in_a_text_are_one_too_many(cluster: FakeCluster) -> None:
    with pytest.raises(ClientError, match="expected one TrainingRun in the manifest, found 2"):
        connect().create(f"{MANIFEST}---\n{MANIFEST}")


def test_metrics_are_numbers_of_the_training_and_of_the_evaluation(cluster: FakeCluster) -> None:
    runs.succeeded(cluster)
    assert connect().metrics("served") == {"loss": 0.412, "eval/loss": 0.4482, "eval/exactMatch": 0.83}


def test_waiting_gives_the_run_or_runs_out_of_time(cluster: FakeCluster) -> None:
    runs.succeeded(cluster)
    runs.training(cluster)
    assert connect().wait("served", seconds=1).fate is Fate.SUCCEEDED
    with pytest.raises(TimedOut, match="training on arcanine"):
        connect().wait("runbook", seconds=0.2)


def test_logs_are_lines_with_their_step(cluster: FakeCluster) -> None:
    runs.training(cluster)
    lines = list(connect().logs("runbook"))
    assert [(line.step, line.attempt, line.text) for line in lines] == [
        ("train", 2, "step 100 of 300"),
        ("train", 2, "step 144 of 300, loss 2.1034"),
    ]


def test_a_cluster_without_trainyard_says_so(cluster: FakeCluster) -> None:
    cluster.unknown.add("trainyard.dev")
    with pytest.raises(NotFound, match="this cluster does not know TrainingRuns"):
        connect().get("runbook")


def test_a_list_that_became_too_old_is_read_again(cluster: FakeCluster) -> None:
    cluster.run(state="Training")
    ask, looks = cluster.answer, 0

    def answer(method: str, target: str, body: object) -> tuple[int, object]:
        nonlocal looks
        looks += "watch=true" in target
        if "watch=true" in target and looks == 1:
            runs.succeeded(cluster)
            cluster.run(state="Succeeded", conditions=[runs.condition("Complete", "True", "S")])
            return 410, {"message": "too old resource version", "reason": "Expired"}
        return ask(method, target, body)

    cluster.answer = answer  # type: ignore[method-assign]
    assert connect().wait("runbook", seconds=5).fate is Fate.SUCCEEDED
    assert looks == 1


def test_importing_the_client_imports_nothing_slow() -> None:
    slow = ("pydantic", "kubernetes", "kopf", "aiohttp", "torch")
    code = f"import sys; from trainyard.client import connect; print([m for m in {slow} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
