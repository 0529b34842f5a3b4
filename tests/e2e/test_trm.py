"""A Tiny Recursive Model in the cluster: the small form of the monthly example goes through all steps, and is compared."""

import pytest

from tests.e2e import runs
from tests.e2e.kube import Kube
from tests.e2e.volumes import work_folder

NAME = "trm-homelab-small"


@pytest.mark.timeout(300)
def test_the_small_example_is_trained_and_compared(kube: Kube, space: str) -> None:
    (manifest,) = [m for m in runs.example("trm-homelab") if m["metadata"]["name"] == NAME]
    runs.create_any(kube, space, manifest)
    run = runs.until_succeeded(kube, space, NAME, seconds=240)
    evaluation = run["status"]["evaluation"]
    metrics = runs.evaluated(run)
    assert {"exact", "token_accuracy", "baseline_Majority", "baseline_NearestNeighbor"} <= set(metrics)
    best = max(value for name, value in metrics.items() if name.startswith("baseline_"))
    assert evaluation["passed"] == (metrics["exact"] >= best + manifest["spec"]["evaluation"]["minimumGain"])
    status = run["status"]["trainerStatus"]
    assert status["step"] == status["totalSteps"]
    assert (work_folder(kube, run) / "model" / "model.safetensors").exists()
