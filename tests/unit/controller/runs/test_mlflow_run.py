"""The id of the MLflow run: told while it trains, and never forgotten afterwards."""

from tests.unit.controller.runs.world import World, manifest, until_training
from trainyard.api.progress import ProgressRecord
from trainyard.controller.manifests.job import referenced_secrets

MLFLOW = {"trackingUri": "https://mlflow.example.org", "secretRef": {"name": "mlflow"}}


def test_it_is_told_by_the_live_report_and_kept_by_records_without_it() -> None:
    world = World(manifest(tracking={"mlflow": MLFLOW}))
    until_training(world)
    world.progress = ProgressRecord(
        run_uid=world.run["metadata"]["uid"],
        step="train",
        attempt=1,
        sequence=1,
        time="2026-01-01T00:00:00Z",
        mlflow_run_id="abc",
    )
    world.settle()
    assert world.status().mlflow_run_id == "abc"
    world.end(record={"stepNumber": 10, "totalSteps": 10})
    world.settle()
    assert world.status().mlflow_run_id == "abc"


def test_the_final_record_is_enough() -> None:
    world = World(manifest(tracking={"mlflow": MLFLOW}))
    until_training(world)
    world.end(record={"stepNumber": 10, "totalSteps": 10, "mlflowRunId": "abc"})
    world.settle()
    assert world.status().mlflow_run_id == "abc"


def test_its_secret_is_mounted_into_the_pods() -> None:
    run = World(manifest(tracking={"mlflow": MLFLOW})).observe().run
    assert referenced_secrets(run) == {"mlflow": "spec.tracking.mlflow.secretRef.name"}
