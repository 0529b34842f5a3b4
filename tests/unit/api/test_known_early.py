"""Faults that the manifest alone shows are refused by `trainyard validate`, with the way out; what the cluster takes is taken."""

from typing import Any

import pytest

from tests.unit.cli.calling import call
from tests.unit.controller.runs.world import manifest
from trainyard.api.manifest import InvalidManifest, parse_run, parse_schedule
from trainyard.api.names import service_name
from trainyard.controller.manifests.job import build_service
from trainyard.controller.manifests.metadata import RunRef


def faults(run: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidManifest) as caught:
        parse_run(run)
    return [str(fault) for fault in caught.value.faults]


TUNING: dict[str, Any] = {
    "model": {"storageUri": "hf://a/b", "adapter": {"lora": {"rank": 4}}},
    "training": {"method": "SFT"},
}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"merge": False}, "spec.merge: unknown field here; did you mean spec.model.adapter.merge?"),
        (
            {"training": {"method": "SFT", "everySteps": 3}},
            "spec.training.everySteps: unknown field here; did you mean spec.checkpoints.everySteps?",
        ),
        (
            {"training": {"method": "SFT", "learning_rate": 3}},
            "spec.training.learning_rate: unknown field; did you mean learningRate?",
        ),
        ({"maxStep": 3}, "spec.maxStep: unknown field here; did you mean spec.training.maxSteps?"),
        (
            {"datasets": [{"name": "d", "inline": {"text": "a"}, "eval": 0.1}]},
            "spec.datasets[0].eval: unknown field here; did you mean spec.datasets[].split.eval?",
        ),
    ],
)
def test_a_field_in_the_wrong_place_is_told_its_own(spec: dict[str, Any], told: str) -> None:
    assert told in faults(manifest(**{**TUNING, **spec}))


def test_a_word_that_nothing_resembles_gets_the_list() -> None:
    (told,) = faults(manifest(xyzzy=1))
    assert told.startswith("spec.xyzzy: unknown field; known are activeDeadlineSeconds, args, ")


def test_a_name_that_a_prefix_will_become_is_accepted() -> None:
    run = manifest()
    del run["metadata"]["name"]
    run["metadata"]["generateName"] = "sft-"
    assert parse_run(run).metadata.name == "sft-local"
    run["metadata"]["generateName"] = "a" * 45
    assert len(parse_run(run).metadata.name) == 50
    for prefix in ("a" * 46, "With.dot-", "-a"):
        run["metadata"]["generateName"] = prefix
        assert any("must be at most 45 characters of a-z, 0-9 and -" in fault for fault in faults(run))
    del run["metadata"]["generateName"]
    assert "metadata.name: is required" in faults(run)


def test_validate_takes_such_a_manifest() -> None:
    text = "apiVersion: trainyard.dev/v1alpha1\nkind: TrainingRun\nmetadata: {generateName: gen-}\nspec:\n"
    text += "  image: own:1\n  command: [train]\n"
    result = call("validate", "-f", "-", stdin=text)
    assert (result.exit_code, "TrainingRun gen- is valid" in result.output) == (0, True)


@pytest.mark.parametrize(("name", "whole"), [("sft", "sft-pods"), ("7b-sft", None)])
def test_the_service_of_a_run_begins_with_a_letter(name: str, whole: str | None) -> None:
    """A Service's name does, a run's need not."""
    found = service_name(name)
    assert found[0].isalpha()
    assert len(service_name("7" * 50)) <= 63
    assert whole is None or found == whole
    run = manifest(numNodes=2, storage={"checkpoints": {"accessModes": ["ReadWriteMany"]}})
    run["metadata"]["name"] = name
    assert build_service(RunRef.of(run, parse_run(run)))["metadata"]["name"] == found


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ({"labels": {"a": "x" * 64}}, "spec.podTemplate.labels.a"),
        ({"labels": {"a": "with blank"}}, "spec.podTemplate.labels.a"),
        ({"labels": {"with blank": "a"}}, "podTemplate.labels has a key that is no name of a label"),
        ({"annotations": {"a/b/c": "anything at all"}}, "podTemplate.annotations has a key that is no name of a label"),
    ],
)
def test_labels_that_no_pod_can_have_are_refused(template: dict[str, Any], told: str) -> None:
    assert any(told in fault for fault in faults(manifest(podTemplate=template)))
    fine = {"labels": {"example.com/team": "a.b_c-1", "x": ""}, "annotations": {"sidecar.istio.io/inject": "false {}"}}
    parse_run(manifest(podTemplate=fine))


@pytest.mark.parametrize(
    ("expression", "fine"),
    [("@daily", True), (" @Weekly ", False), ("@hourly", True), ("@every 5m", False), ("@often", False)],
)
def test_short_forms_of_a_schedule(expression: str, fine: bool) -> None:
    schedule = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingSchedule",
        "metadata": {"name": "s"},
        "spec": {"schedule": expression, "template": {"spec": manifest()["spec"]}},
    }
    if fine:
        parse_schedule(schedule)
        return
    with pytest.raises(InvalidManifest) as caught:
        parse_schedule(schedule)
    (fault,) = caught.value.faults
    assert "Or one of @hourly, @daily" in fault.message


def test_other_faults_that_need_no_cluster() -> None:
    together = {"adapter": {"lora": {"targetModules": ["all-linear", "q_proj"]}}, "storageUri": "hf://a/b"}
    assert any(
        "all-linear stands for every linear layer" in f for f in faults(manifest(**{**TUNING, "model": together}))
    )
    away = manifest(checkpoints={"resumeFrom": "../other"})
    assert any("checkpoints.resumeFrom leaves the volume" in fault for fault in faults(away))
    parse_run(manifest(checkpoints={"resumeFrom": "runs/a..b/checkpoints"}))


def test_a_run_that_waits_in_a_queue_keeps_no_deployment_down() -> None:
    run = manifest(placement={"yieldFrom": [{"deployment": "ollama"}]})
    parse_run(run)
    run["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team"}
    assert faults(run) == [
        "manifest: spec.placement.yieldFrom: a run with the label kueue.x-k8s.io/queue-name may wait for days, and would keep the "
        "Deployment down meanwhile: remove the label or the field"
    ]
