"""Datasets that are made in the run: built in the cluster, versioned, taken from the cache, and worth training on."""

import json
import re
from typing import Any

import pytest

from tests.e2e import measure, runs
from tests.e2e.kube import Kube
from tests.e2e.volumes import work_folder

pytestmark = pytest.mark.timeout(500)

CODE = {
    "name": "code",
    "storageUri": f"{runs.SAMPLES}/*.py",
    "generate": {"tasks": ["CodePurpose", "CodeSignature", "CodeDependency"], "maxPerTask": 150},
    "deduplicate": "Near",
    "split": {"eval": 0.1, "groupBy": ["metadata.query"]},
}
METRICS = {
    "name": "metrics",
    "inline": {
        "records": [
            {
                "kind": "series",
                "query": "queue",
                "metric": {"__name__": "queue", "job": f"job-{n}"},
                "step": 60,
                "values": [[1766900000 + 60 * t, round(10 + n + t * n / 3, 1)] for t in range(24)],
            }
            for n in range(20)
        ]
    },
    "generate": {},
    "split": {"eval": 0.1},
}


def test_a_model_trained_on_a_built_dataset_beats_the_untrained_one(kube: Kube, space: str) -> None:
    training = {"method": "SFT", "maxSteps": 60, "maxLength": 256, "learningRate": 3e-3}
    model = json.loads(json.dumps(runs.MODEL))
    model["scratch"]["config"]["max_position_embeddings"] = 256
    runs.apply(kube, space, runs.tiny("taught", model=model, datasets=[CODE, METRICS], training=training))
    run = runs.until_succeeded(kube, space, "taught", seconds=400)
    dataset = run["status"]["dataset"]
    assert {s["name"] for s in dataset["sources"]} == {"code", "metrics"}
    assert sum(s["records"] for s in dataset["sources"]) == dataset["records"] > 100
    manifest = json.loads((work_folder(kube, run) / "dataset" / "manifest.json").read_text())
    assert manifest["digest"] == dataset["digest"]
    after, before = runs.evaluated(run), runs.evaluated(run, "baseline")
    assert after["tokens"] == before["tokens"], "the same held-out records"
    assert after["loss"] < 0.8 * before["loss"]
    measure.record("built dataset", dataset=dataset, after=after, before=before, statistics=manifest["statistics"])


def test_building_alone_and_building_again(kube: Kube, space: str) -> None:
    """Two runs, the same digest; the second takes the version from the cache that they share."""
    storage: dict[str, Any] = {
        "checkpoints": {"size": "1Gi"},
        "cache": {"claimName": "cache", "size": "1Gi", "retain": True},
    }
    found = []
    for name in ("first", "second"):
        spec = {"mode": "Dataset", "datasets": [CODE, METRICS], "storage": storage, "model": None}
        manifest = runs.tiny(name, **spec)
        del manifest["spec"]["training"]
        runs.apply(kube, space, manifest)
        run = runs.until_succeeded(kube, space, name, seconds=200)
        assert [s["name"] for s in run["status"]["steps"]] == ["prepare"]
        assert run["status"]["summary"]["method"] == "Dataset"
        assert run["status"]["outputs"]["dataset"].endswith("/dataset")
        found.append(
            (run["status"]["dataset"]["digest"], kube.log(space, runs.pods(kube, space, name)[0]["metadata"]["name"]))
        )
    assert found[0][0] == found[1][0]
    assert "taken from the cache" not in found[0][1]
    assert "taken from the cache" in found[1][1]


def test_a_dry_run_is_quick_and_small(kube: Kube, space: str) -> None:
    records = [{"prompt": f"What is {n} plus {n}?", "response": f"It is {2 * n}."} for n in range(10)]
    data = [{"name": "test-v1", "format": "TrainingExample", "inline": {"records": records}, "split": {"eval": 0.2}}]
    runs.apply(kube, space, runs.tiny("seed", mode="DryRun", datasets=data, training={"method": "SFT"}))
    run = runs.until_succeeded(kube, space, "seed", seconds=120)
    log = kube.log(space, runs.pods(kube, space, "seed")[0]["metadata"]["name"])
    told = re.search(r"the run is valid \(([\d.]+) s, (\d+) MB of memory\)", log)
    assert told is not None, log
    assert int(told[2]) < 500
    assert "⟦It is" in log, "the preview shows what counts"
    measure.record("dry run", seconds=float(told[1]), megabytes=int(told[2]), effective=run["status"].get("effective"))
