"""What made the result: the trainer's word on versions and data, the node's on the image."""

from tests.unit.controller.runs.world import World, until_training

IMAGE = "registry.example.org/trainer@sha256:" + "ab" * 32


def test_the_image_that_really_ran_stands_beside_what_the_trainer_tells() -> None:
    world = World()
    until_training(world)
    record = {
        "stepNumber": 10,
        "totalSteps": 10,
        "provenance": {"torch": "2.15.0", "seed": 42, "datasetDigest": "sha256:1"},
    }
    world.end(record=record)
    pod = next(p for name, p in world.pods.items() if "-train-" in name)
    pod["status"]["containerStatuses"][0]["imageID"] = f"docker-pullable://{IMAGE}"
    world.settle()
    assert world.status().provenance == {
        "torch": "2.15.0",
        "seed": "42",
        "datasetDigest": "sha256:1",
        "image": IMAGE,
    }
