"""An MLflow that pods can reach: one run for a training whose pod is deleted, and its id in the status."""

import pytest

from tests.e2e import runs
from tests.e2e.kube import Kube
from tests.e2e.volumes import work_folder
from tests.e2e.web import ADDRESS
from tests.unit.trainer.tracking.mlflow_stand_in import running
from trainyard.controller.kube.resources import PODS, SECRETS

STEPS = 2000


@pytest.mark.timeout(400)
def test_one_run_through_a_deleted_pod(kube: Kube, space: str) -> None:
    kube.create(SECRETS, space, {"metadata": {"name": "mlflow"}, "stringData": {"token": "a-token"}})
    with running(ADDRESS) as server:
        mlflow = {"trackingUri": server.url, "experiment": "lab", "secretRef": {"name": "mlflow"}}
        tracking = {"mlflow": mlflow, "tensorboard": True}
        runs.apply(kube, space, runs.tiny("tracked", training={"maxSteps": STEPS}, tracking=tracking))
        early = runs.until(
            kube, space, "tracked", lambda r: runs.step_number(r) > 25, seconds=240, what="a step behind a checkpoint"
        )
        assert early["status"]["mlflowRunId"] == "run0"
        (pod,) = runs.pods(kube, space, "tracked", step="train")
        kube.delete(PODS, space, pod["metadata"]["name"])
        run = runs.until_succeeded(kube, space, "tracked", seconds=240)
    assert run["status"]["mlflowRunId"] == "run0"
    assert run["status"]["restarts"] == 1
    assert len(server.runs) == 1
    assert [step for name, _, step in server.metrics if name == "loss"] == list(range(1, STEPS + 1))
    assert server.authorization == {"Bearer a-token"}
    assert server.statuses[-1] == "FINISHED"
    assert {name.rpartition("/")[2] for name in server.artifacts} >= {"metrics.json", "samples.json"}
    events = sorted(p.name for p in (work_folder(kube, run) / "logs").glob("events.out.tfevents.*"))
    assert [name.rpartition(".")[2] for name in events] == ["1", "2"], "one file for each attempt"
