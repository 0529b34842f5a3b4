"""Containers that end before the trainer's starts: how they are made, and who is told when one does not."""

from typing import Any

import pytest

from tests.unit.controller.runs.world import World, condition, manifest
from trainyard.api.manifest import InvalidManifest, parse_run

ONE = {
    "name": "fetch",
    "image": "example.org/fetch:1",
    "command": ["fetch", "all"],
    "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}}],
    "resources": {"limits": {"memory": "1Gi"}},
    "volumeMounts": [{"name": "trainyard-checkpoints", "mountPath": "/v"}],
}


def begun(**state: Any) -> World:
    world = World(run=manifest(podTemplate={"initContainers": [ONE]}))
    world.settle()
    world.start_pod()
    pod = next(iter(world.pods.values()))
    waiting = {"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}
    pod["status"] = {"phase": "Pending", "containerStatuses": [waiting]}
    pod["status"]["initContainerStatuses"] = [{"name": "fetch", "state": state}]
    return world


def test_it_is_in_every_pod_with_the_trainers_security_context() -> None:
    world = begun(running={"startedAt": "2026-01-01T00:00:00Z"})
    pod = world.jobs["tiny-prepare-1"]["spec"]["template"]["spec"]
    (made,) = pod["initContainers"]
    assert made["securityContext"] == pod["containers"][0]["securityContext"]
    assert {name: made[name] for name in ("name", "image", "command", "env", "volumeMounts")} == {
        name: ONE[name] for name in ("name", "image", "command", "env", "volumeMounts")
    }
    assert made["resources"] == {"limits": {"memory": "1Gi"}}
    world.settle()
    assert world.status().state == "Pending"


def test_one_that_fails_is_told_by_its_name() -> None:
    ended = {
        "exitCode": 3,
        "reason": "Error",
        "finishedAt": "2026-01-01T00:01:00Z",
        "startedAt": "2026-01-01T00:00:00Z",
    }
    world = begun(terminated={**ended, "message": "no such bucket\n"})
    next(iter(world.pods.values()))["status"]["phase"] = "Failed"
    failed = {"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}
    world.jobs["tiny-prepare-1"]["status"] = {"conditions": [failed]}
    world.settle()
    (attempt,) = (world.status().steps or [])[0].attempts or []
    assert (attempt.reason, attempt.exit_code, attempt.counted) == ("Error", 3, True)
    assert "init container fetch: no such bucket" in (attempt.message or "")


def test_one_whose_image_does_not_come_says_so() -> None:
    world = begun(waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "example.org/fetch:1"'})
    world.pass_time(60)
    world.settle()
    assert condition(world, "Ready") == ("False", "ImagePull")
    assert "init container fetch" in (world.status().message or "")


@pytest.mark.parametrize(
    ("containers", "told"),
    [
        ([{**ONE, "name": "trainer"}], "an init container is called trainer"),
        ([ONE, ONE], "two of podTemplate.initContainers have the same name"),
        ([{**ONE, "securityContext": {"privileged": True}}], "securityContext"),
    ],
)
def test_what_one_must_not_be(containers: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(InvalidManifest, match=told):
        parse_run(manifest(podTemplate={"initContainers": containers}))
