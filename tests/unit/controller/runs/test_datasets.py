"""Runs that only build a dataset, and what the status says about data and about the model before training."""

from tests.unit.controller.runs.world import World, manifest
from trainyard.controller.manifests.job import referenced_secrets

BUILT = {
    "dataset": {
        "digest": "abc",
        "records": 30,
        "splits": {"train": 27, "eval": 3},
        "sources": [{"name": "text", "records": 20}, {"name": "metrics", "records": 10}],
    }
}


def test_mode_dataset_builds_and_stops() -> None:
    spec = manifest(mode="Dataset", datasetUpload={"storageUri": "s3://bucket/built", "secretRef": {"name": "store"}})
    del spec["spec"]["model"], spec["spec"]["training"]
    world = World(run=spec)
    assert referenced_secrets(world.observe().run) == {"store": "spec.datasetUpload.secretRef.name"}
    pushed = World(run=manifest(pushToHub={"repo": "org/name", "secretRef": {"name": "hub"}}))
    assert referenced_secrets(pushed.observe().run) == {"hub": "spec.pushToHub.secretRef.name"}
    del spec["spec"]["datasetUpload"]
    world = World(run=spec)
    world.settle()
    assert world.created == ["tiny-prepare-1"]
    world.start_pod()
    world.settle()
    assert world.status().state == "Preparing"
    world.end(record=BUILT)
    world.settle()
    status = world.status()
    assert world.created == ["tiny-prepare-1"], "nothing is trained"
    assert (status.state, status.message) == ("Succeeded", "30 records built")
    assert status.summary is not None
    assert (status.summary.method, status.summary.model) == ("Dataset", None)
    assert status.outputs is not None
    assert set(status.outputs) == {"claim", "dataset", "uri"}
    assert status.outputs["uri"].endswith("/dataset")
    assert status.dataset is not None
    assert [(s.name, s.records) for s in status.dataset.sources or ()] == [("text", 20), ("metrics", 10)]


def test_the_baseline_stands_beside_the_result() -> None:
    world = World()
    for record in (BUILT, {}, {"evaluation": {"metrics": {"loss": 2.5}, "baseline": {"loss": 6.0}}}):
        world.settle()
        world.start_pod()
        world.end(record=record)
    world.settle()
    evaluation = world.status().evaluation
    assert evaluation is not None
    assert [(m.name, m.value) for m in evaluation.metrics or ()] == [("loss", "2.5")]
    assert [(m.name, m.value) for m in evaluation.baseline or ()] == [("loss", "6")]
