"""Exports in the plan: what may work beside what, what waits for the gates, and what a failure costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.controller.runs.world import World, condition, manifest, parsed_run
from trainyard.api.names import STEP_LABEL
from trainyard.api.run.exports import TARGETS, Target
from trainyard.controller.manifests.metadata import RunRef
from trainyard.controller.runs.observe import too_large

DIGEST = "sha256:" + "ab" * 32


def hub(name: str, *after: str, **common: Any) -> dict[str, Any]:
    return {
        "name": name,
        "dependsOn": list(after),
        "hub": {"repo": f"org/{name}", "secretRef": {"name": "hub"}},
        **common,
    }


def config(name: str, *after: str, **target: Any) -> dict[str, Any]:
    fields = {"name": "agent", "data": {"VERSION": "{version}", "DIGEST": "{digest}"}, **target}
    return {"name": name, "dependsOn": list(after), "configMap": fields}


def world_of(*exports: dict[str, Any], **spec: Any) -> World:
    world = World(run=manifest(exports=list(exports), evaluation={"enabled": False}, **spec))
    world.run["metadata"]["creationTimestamp"] = "2026-11-28T09:30:00Z"
    return world


def live(world: World) -> dict[str, dict[str, Any]]:
    """By step: the Jobs that work."""
    jobs = [j for j in world.jobs.values() if not j.get("status", {}).get("conditions")]
    return {job["metadata"]["labels"][STEP_LABEL]: job for job in jobs}


def end(world: World, step: str, *, exit_code: int = 0, record: dict[str, Any] | None = None) -> None:
    """One of several Jobs ends."""
    job, rest = live(world)[step], {n: j for n, j in world.jobs.items() if j is not live(world)[step]}
    world.jobs = {job["metadata"]["name"]: job}
    if exit_code == 0 and step.startswith("export-"):
        record = {"export": {"uri": f"hf://{step}", "digest": DIGEST, "version": "7"}}
    world.end(exit_code=exit_code, record=record)
    world.jobs |= rest


def trained(world: World) -> World:
    for step in ("prepare", "train"):
        world.settle()
        record = {"provenance": {"modelDigest": DIGEST}} if step == "train" else {}
        end(world, step, record=record)
    world.settle()
    return world


def entries(world: World) -> dict[str, tuple[str, str | None]]:
    return {e.name: (e.state, e.message) for e in world.status().exports or ()}


def test_exports_that_need_not_wait_for_each_other_work_beside_each_other() -> None:
    world = trained(world_of(hub("last", "a", "b"), hub("a"), hub("b")))
    assert set(live(world)) == {"export-a", "export-b"}
    assert world.status().state == "Pending"
    end(world, "export-b")
    world.settle()
    assert set(live(world)) == {"export-a"}, "it waits for both"
    end(world, "export-a")
    world.settle()
    assert set(live(world)) == {"export-last"}
    end(world, "export-last")
    world.settle()
    status = world.status()
    assert (status.state, status.message) == ("Succeeded", "done")
    assert status.outputs is not None
    assert status.outputs["a"] == "hf://export-a"
    assert status.outputs["uri"].endswith("/model")
    first = next(e for e in status.exports or () if e.name == "a")
    assert (first.target, first.version, first.digest, first.attempts) == ("hub", "7", DIGEST, 1)
    assert status.model is not None
    assert status.model.version == "v20261128-11112222"


def test_exports_get_no_gpu() -> None:
    world = trained(world_of(hub("a"), resources={"limits": {"nvidia.com/gpu": 1}}))
    container = live(world)["export-a"]["spec"]["template"]["spec"]["containers"][0]
    assert "nvidia.com/gpu" not in json.dumps(container)
    assert container["command"][-3:] == ["export", "--name", "a"]


def test_a_failed_export_costs_the_run_no_attempt_and_the_others_nothing() -> None:
    world = trained(world_of(hub("bad", backoffLimit=1), hub("good"), hub("after", "bad"), backoffLimit=0))
    end(world, "export-bad", exit_code=69)
    world.settle()
    assert set(live(world)) == {"export-good"}, "its second try waits"
    world.pass_time(60)
    world.settle()
    assert "tiny-export-bad-2" in world.created
    end(world, "export-bad", exit_code=69)
    world.settle()
    assert condition(world, "Failed") is None, "the other one still works"
    assert entries(world)["after"] == ("Skipped", "export bad, which it depends on, failed")
    end(world, "export-good")
    world.settle()
    status = world.status()
    assert condition(world, "Failed") == ("True", "ExportFailed")
    assert status.restarts_count_towards_max == 0
    assert status.failure is not None
    assert status.failure.step == "export-bad"
    assert status.outputs is not None
    assert status.outputs["model"].endswith("/model"), "the trained model is not lost"
    assert status.outputs["good"] == "hf://export-good"
    assert "after" not in status.outputs


def test_a_run_that_may_do_without_an_export_succeeds_without_it() -> None:
    world = trained(world_of(hub("bad", onFailure="Continue")))
    end(world, "export-bad", exit_code=64)
    world.settle()
    status = world.status()
    assert (status.state, status.message) == ("Succeeded", "done, without export-bad, which failed")


@pytest.mark.parametrize("passed", [True, False, None])
def test_what_waits_for_the_gates_begins_only_when_they_are_passed(passed: bool | None) -> None:
    world = world_of(hub("careful"), hub("follows", "careful", when="Succeeded"), hub("always", when="Succeeded"))
    world.run["spec"] |= {
        "model": {"trm": {}},
        "datasets": [{"name": "d", "puzzle": {"kind": "Sudoku"}, "split": {"eval": 0.1}}],
        "training": {"method": "TRM", "maxSteps": 10},
        "evaluation": {"minimumGain": 0.1},
    }
    for step in ("prepare", "train", "evaluate"):
        world.settle()
        evaluation = {"metrics": {"accuracy": 0.5}, "passed": passed, "message": "0.5 is below 0.8"}
        end(world, step, record={"evaluation": evaluation} if step == "evaluate" else {})
    world.settle()
    assert set(live(world)) == ({"export-careful", "export-always"} if passed else {"export-always"})
    if not passed:
        assert entries(world)["careful"] == ("Skipped", "the gates have not been passed: 0.5 is below 0.8")
        assert entries(world)["follows"] == ("Skipped", "export careful, which it depends on, was skipped")
        end(world, "export-always")
        world.settle()
        assert world.status().state == "Succeeded", "it did what it was asked"
        assert "not exported (careful, follows)" in (world.status().message or "")


def a_config_map(**data: str) -> dict[str, Any]:
    return {"metadata": {"name": "agent", "resourceVersion": "1"}, "data": {"other": "stays", **data}}


def a_deployment() -> dict[str, Any]:
    return {
        "metadata": {"name": "agent", "resourceVersion": "1"},
        "spec": {"template": {"metadata": {}}, "replicas": 2},
    }


def test_a_config_map_is_written_by_the_operator_and_its_reader_started_anew_afterwards() -> None:
    world = world_of(config("tell", rolloutRestart={"deployment": "agent"}))
    world.others = {"configmaps": {"agent": a_config_map()}, "deployments": {"agent": a_deployment()}}
    trained(world)
    data = world.others["configmaps"]["agent"]["data"]
    assert data == {"other": "stays", "VERSION": "v20261128-11112222", "DIGEST": "ab" * 6}
    template = world.others["deployments"]["agent"]["spec"]["template"]["metadata"]["annotations"]
    assert world.others["deployments"]["agent"]["spec"]["replicas"] == 2
    assert set(template) == {"trainyard.dev/config-digest"}
    assert (world.status().state, entries(world)) == ("Succeeded", {"tell": ("Succeeded", None)})
    assert not [name for name in world.created if "export" in name], "no pod has such rights"


def test_an_inference_service_gets_what_the_export_before_has_left() -> None:
    world = world_of(hub("store"), {"name": "serve", "dependsOn": ["store"], "kserve": {"inferenceService": "agent"}})
    service = {
        "metadata": {"name": "agent", "resourceVersion": "1"},
        "spec": {"predictor": {"model": {"runtime": "x"}}},
    }
    world.others = {"inferenceservices": {"agent": service}}
    trained(world)
    end(world, "export-store")
    world.settle()
    model = world.others["inferenceservices"]["agent"]["spec"]["predictor"]["model"]
    assert model == {"runtime": "x", "storageUri": "hf://export-store"}


def test_what_is_not_there_is_tried_again_and_told() -> None:
    world = world_of({**config("tell"), "backoffLimit": 1})
    trained(world)
    assert entries(world)["tell"][1] == (
        "spec.exports[tell].configMap: ConfigMap agent does not exist in namespace lab; create it, or correct the name"
    )
    world.others = {"configmaps": {"agent": a_config_map()}}
    world.settle()
    assert entries(world)["tell"][0] == "Waiting", "not before its time"
    world.pass_time(60)
    world.settle()
    assert entries(world)["tell"] == ("Succeeded", None)
    assert next(e.attempts for e in world.status().exports or ()) == 2


def test_what_the_operator_may_not_do_fails_the_export_alone() -> None:
    world = world_of({**config("tell"), "backoffLimit": 0}, hub("store"))
    world.refusal = "the operator may not patch configmaps lab/agent: no"
    trained(world)
    assert entries(world)["tell"][0] == "Failed"
    assert set(live(world)) == {"export-store"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"manager": "kustomize-controller", "operation": "Apply"}, "kustomize-controller"),
        ({"manager": "kubectl-client-side-apply", "operation": "Update"}, "kubectl-client-side-apply"),
        ({"manager": "helm", "operation": "Update"}, None),
        ({"manager": "trainyard", "operation": "Update"}, None),
    ],
)
def test_a_key_that_somebody_applies_again_and_again_is_left_to_him(entry: dict[str, str], told: str | None) -> None:
    world = world_of({**config("tell"), "backoffLimit": 0})
    there = a_config_map(VERSION="v0")
    there["metadata"]["managedFields"] = [{**entry, "fieldsV1": {"f:data": {"f:VERSION": {}}}}]
    world.others = {"configmaps": {"agent": there}}
    trained(world)
    if told is None:
        assert world.others["configmaps"]["agent"]["data"]["VERSION"] == "v20261128-11112222"
    else:
        assert world.others["configmaps"]["agent"]["data"]["VERSION"] == "v0"
        assert f"gets its key VERSION from {told} too" in (entries(world)["tell"][1] or "")


@pytest.fixture
def with_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repositories whose name ends with -alias have something that points at the newest result."""
    promoting = Target(promotes=lambda target: target.repo.endswith("-alias"))
    monkeypatch.setitem(TARGETS, "hub", promoting)


@pytest.mark.usefixtures("with_alias")
def test_aliases_are_set_last_of_all_and_only_if_nothing_is_missing() -> None:
    world = trained(world_of(hub("a-alias"), hub("b"), hub("c", onFailure="Continue")))
    end(world, "export-a-alias")
    end(world, "export-b")
    world.settle()
    assert set(live(world)) == {"export-c"}
    end(world, "export-c", exit_code=64)
    world.settle()
    assert set(live(world)) == {"promote"}, "one that the run may do without may fail"
    end(world, "promote")
    world.settle()
    status = world.status()
    assert status.state == "Succeeded"
    promoted = (status.promotions or [])[0]
    assert (promoted.kind, promoted.version, promoted.exports) == ("Promoted", "v20261128-11112222", ["a-alias"])

    broken = trained(world_of(hub("a-alias"), hub("b")))
    end(broken, "export-b", exit_code=64)
    end(broken, "export-a-alias")
    broken.settle()
    assert "tiny-promote-1" not in broken.created
    assert condition(broken, "Failed") == ("True", "ExportFailed")
    assert broken.status().promotions is None


@pytest.mark.usefixtures("with_alias")
def test_what_cannot_be_promoted_fails_the_run_and_loses_nothing() -> None:
    world = trained(world_of({**hub("a-alias"), "backoffLimit": 0}))
    end(world, "export-a-alias")
    world.settle()
    end(world, "promote", exit_code=69)
    world.settle()
    status = world.status()
    assert condition(world, "Failed") == ("True", "ExportFailed")
    assert status.failure is not None
    assert status.failure.step == "promote"
    assert (status.outputs or {})["a-alias"] == "hf://export-a-alias"


def roll_back(world: World, token: str) -> None:
    world.run["metadata"].setdefault("annotations", {})["trainyard.dev/rollback"] = token
    world.settle()


@pytest.mark.usefixtures("with_alias")
@pytest.mark.parametrize("dies_after", [None, 0, 1, 2])
def test_a_promotion_is_taken_back_once_for_each_request(dies_after: int | None) -> None:
    world = trained(world_of(hub("a-alias")))
    for step in ("export-a-alias", "promote"):
        end(world, step)
        world.settle()
    before = world.status()
    world.run["metadata"].setdefault("annotations", {})["trainyard.dev/rollback"] = "2026-11-28 too slow"
    world.reconcile(dies_after=dies_after)
    world.settle()
    assert set(live(world)) == {"rollback-1"}
    container = live(world)["rollback-1"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][-3:] == ["rollback", "--name", "1"]
    end(world, "rollback-1", exit_code=69)
    world.settle()
    world.pass_time(60)
    world.settle()
    end(world, "rollback-1")
    world.reconcile(dies_after=dies_after)
    world.settle()
    status = world.status()
    assert [(p.kind, p.reason) for p in status.promotions or ()][1:] == [("RolledBack", "2026-11-28 too slow")]
    assert (status.state, status.completion_time) == (before.state, before.completion_time), "ended is ended"
    assert [n for n in world.created if "rollback" in n] == ["tiny-rollback-1-1", "tiny-rollback-1-2"]
    roll_back(world, "again")
    assert status.rollback is not None
    assert world.status().rollback is not None
    assert world.status().rollback.message == "it was taken back already"  # type: ignore[union-attr]
    assert not live(world)


@pytest.mark.usefixtures("with_alias")
@pytest.mark.parametrize("somebody_else", [False, True])
def test_what_the_operator_wrote_goes_back_too_unless_it_says_something_else_by_now(somebody_else: bool) -> None:
    serve = {"name": "serve", "dependsOn": ["a-alias"], "kserve": {"inferenceService": "agent"}}
    world = world_of(hub("a-alias"), serve, config("tell", rolloutRestart={"deployment": "agent"}))
    service = {
        "metadata": {"name": "agent", "resourceVersion": "1"},
        "spec": {"predictor": {"model": {"storageUri": "v0"}}},
    }
    world.others = {
        "configmaps": {"agent": a_config_map(VERSION="v0")},
        "deployments": {"agent": a_deployment()},
        "inferenceservices": {"agent": service},
    }
    trained(world)
    for step in ("export-a-alias", "promote"):
        end(world, step)
        world.settle()
    started = json.dumps(world.others["deployments"]["agent"])
    assert (
        world.others["inferenceservices"]["agent"]["spec"]["predictor"]["model"]["storageUri"] == "hf://export-a-alias"
    )
    if somebody_else:
        world.others["inferenceservices"]["agent"]["spec"]["predictor"]["model"]["storageUri"] = "newer"
        world.others["configmaps"]["agent"]["data"]["VERSION"] = "newer"
        world.others["configmaps"]["agent"]["data"]["DIGEST"] = "newer"
    roll_back(world, "slow")
    end(world, "rollback-1")
    world.settle()
    found = world.others["configmaps"]["agent"]["data"]
    expected = "newer" if somebody_else else "v0"
    assert world.others["inferenceservices"]["agent"]["spec"]["predictor"]["model"]["storageUri"] == expected
    assert found["VERSION"] == expected
    assert found.get("DIGEST") == ("newer" if somebody_else else None), "a key that was not there is taken away"
    assert found["other"] == "stays"
    assert (json.dumps(world.others["deployments"]["agent"]) == started) is somebody_else
    assert [p.kind for p in world.status().promotions or ()] == ["Promoted", "RolledBack"]


def test_what_was_never_promoted_cannot_be_taken_back() -> None:
    world = trained(world_of(hub("a")))
    end(world, "export-a")
    world.settle()
    roll_back(world, "now")
    found = world.status().rollback
    assert found is not None
    assert (found.state, not live(world)) == ("Failed", True)
    assert "never promoted" in (found.message or "")


@settings(max_examples=60, deadline=None)
@given(deaths=st.lists(st.integers(0, 6), max_size=12), order=st.permutations(["a", "b", "c", "last"]))
def test_whenever_the_operator_dies_no_job_is_made_twice_and_the_end_is_the_same(
    deaths: list[int], order: list[str]
) -> None:
    chain = {"a": hub("a"), "b": hub("b", "a"), "c": hub("c", "a"), "last": config("last", "b", "c")}
    world = world_of(*(chain[name] for name in order))
    world.others = {"configmaps": {"agent": a_config_map()}}
    moments = iter(deaths)

    def look() -> None:
        world.reconcile(dies_after=next(moments, None))
        world.settle()

    for _ in range(12):
        look()
        for step in list(live(world)):
            end(world, step, record={"provenance": {"modelDigest": DIGEST}} if step == "train" else {})
            look()
    assert world.status().state == "Succeeded"
    assert sorted(world.created) == sorted(
        ["tiny-prepare-1", "tiny-train-1", *(f"tiny-export-{name}-1" for name in ("a", "b", "c"))]
    )
    assert world.others["configmaps"]["agent"]["data"]["DIGEST"] == "ab" * 6
    assert {e.digest for e in world.status().exports or () if e.target == "hub"} == {DIGEST}


def container_of(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = live(world)[f"export-{name}"]["spec"]["template"]["spec"]["containers"][0]["resources"]
    return found


def test_an_export_that_runs_the_model_gets_what_the_training_had_but_for_its_gpus() -> None:
    training = {"requests": {"cpu": "3"}, "limits": {"memory": "6Gi", "nvidia.com/gpu": "1"}}
    file = {"name": "file", "gguf": {"quantizations": ["f16"]}}
    own = {"name": "own", "mlx": {}, "resources": {"requests": {"cpu": "2"}}}
    world = trained(world_of(file, own, hub("store"), resources=training))
    assert container_of(world, "file") == {"requests": {"cpu": "3"}, "limits": {"memory": "6Gi"}}
    assert container_of(world, "own") == {"requests": {"cpu": "2"}}
    assert container_of(world, "store") == {"requests": {"cpu": "100m", "memory": "512Mi"}}


def test_an_export_that_fits_no_node_is_told_with_its_own_field() -> None:
    text = json.dumps(
        manifest(exports=[hub("store", resources={"requests": {"cpu": "99"}}), {"name": "file", "gguf": {}}])
    )
    spec = parsed_run(text).spec
    run = RunRef("r", "n", "0123456789", spec, {}, {})
    nodes = [{"cpu": "4", "memory": "8Gi"}]
    assert too_large(run, "export-store", nodes) == (
        "spec.exports[store].resources asks for cpu: 99, the largest node has 4; lower it, or add such a node",
    )
    assert too_large(run, "export-file", nodes) == ()
