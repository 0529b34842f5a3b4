"""The verbs that change something: run, stop, resume, retry, cancel, promote, rollback."""

from typing import Any

import pytest

from tests import ROOT
from tests.unit.cli import runs
from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import FakeCluster
from trainyard.cli.successors import numbered

QUICKSTART = str(ROOT / "examples/quickstart/trainingrun.yaml")


def only(cluster: FakeCluster, method: str) -> Any:
    (body,) = cluster.bodies(method)
    return body


def test_run_creates_what_the_manifest_says_and_names_what_follows(cluster: FakeCluster) -> None:
    result = call("run", "-f", QUICKSTART)
    assert result.stdout.splitlines() == [
        "created quickstart in namespace lab: prepare -> train -> evaluate, 300 steps",
        "Next: trainyard watch quickstart",
        "      trainyard logs -f quickstart",
        "      trainyard status quickstart",
    ]
    assert only(cluster, "POST")["metadata"]["name"] == "quickstart"


def test_run_with_changes_of_the_command_line(cluster: FakeCluster) -> None:
    words = ["--debug", "--set", "training.learningRate=1e-4", "--name", "tried", "--set", "debugSteps=7"]
    assert call("run", "-f", QUICKSTART, *words).exit_code == 0
    created = only(cluster, "POST")
    assert created["metadata"]["name"] == "tried"
    assert (created["spec"]["mode"], created["spec"]["debugSteps"]) == ("Debug", 7)
    assert created["spec"]["training"]["learningRate"] == 1e-4
    assert call("run", "-f", QUICKSTART, "--dry-run", "--name", "checked").stdout.startswith(
        "created checked in namespace lab: validate"
    )


def test_a_phase_alone(cluster: FakeCluster) -> None:
    result = call("run", "-f", str(ROOT / "examples/committee/trainingrun.yaml"), "--phase", "pretrain")
    assert result.exit_code == 0, result.output
    assert only(cluster, "POST")["spec"]["runPhases"] == ["pretrain"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "training.maxSteps=0"], 1, "must be at least 1"),
        (["--set", "training.maxStep=3"], 1, "did you mean maxSteps"),
        (["--debug", "--dry-run"], 2, "give one of them"),
        (["--phase", "nothing"], 1, "nothing was started"),
    ],
)
def test_a_wrong_run_is_never_created(words: list[str], code: int, said: str, cluster: FakeCluster) -> None:
    result = call("run", "-f", QUICKSTART, *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert not cluster.bodies("POST")


def test_a_name_that_is_taken_says_what_to_do(cluster: FakeCluster) -> None:
    cluster.run("quickstart")
    result = call("run", "-f", QUICKSTART)
    assert result.exit_code == 1
    assert "give --name, or trainyard retry quickstart" in result.stderr


def test_run_and_wait_ends_as_the_run_does(cluster: FakeCluster) -> None:
    cluster.later = [
        lambda: cluster.run("quickstart", state="Failed", conditions=[runs.condition("Failed", "True", "Error")])
    ]
    assert call("run", "-f", QUICKSTART, "--wait").exit_code == 1


def test_stop_suspends_and_resume_goes_on(cluster: FakeCluster) -> None:
    runs.training(cluster)
    result = call("stop", "runbook")
    assert result.stdout.splitlines()[0] == "runbook will write a checkpoint and stop"
    assert only(cluster, "PATCH") == {"spec": {"suspend": True}}
    result = call("resume", "runbook")
    assert result.stdout.splitlines()[0] == "runbook goes on from step 100"
    assert cluster.bodies("PATCH")[1] == {"spec": {"suspend": False}}
    assert "is not suspended" in call("resume", "runbook").stdout


def test_stop_waits_until_the_pods_are_gone(cluster: FakeCluster) -> None:
    runs.training(cluster)
    stopped = {"state": "Suspended", "message": "at step 144", "conditions": [runs.condition("Suspended", "True", "S")]}
    cluster.later = [lambda: cluster.run("runbook", **stopped)]
    result = call("stop", "runbook", "--wait")
    assert "runbook Suspended: at step 144" in result.stdout


@pytest.mark.parametrize("verb", ["stop", "cancel"])
def test_what_has_ended_is_not_stopped(verb: str, cluster: FakeCluster) -> None:
    runs.failed(cluster)
    result = call(verb, "broken")
    assert result.exit_code == 1
    assert "has ended" in result.stderr
    assert not cluster.bodies("PATCH")


def test_cancel_is_an_annotation_with_the_reason(cluster: FakeCluster) -> None:
    runs.training(cluster)
    assert call("cancel", "runbook", "--reason", "wrong data").exit_code == 0
    assert only(cluster, "PATCH") == {"metadata": {"annotations": {"trainyard.dev/cancel": "wrong data"}}}
    runs.training(cluster)
    assert call("stop", "runbook", "--cancel").exit_code == 0
    assert "trainyard.dev/cancel" in cluster.bodies("PATCH")[1]["metadata"]["annotations"]


def test_a_run_at_its_cost_limit_goes_on_when_that_is_raised(cluster: FakeCluster) -> None:
    suspended = [runs.condition("Suspended", "True", "CostLimitReached")]
    cluster.run("dear", spec={"cost": {"limit": 1}}, state="Suspended", conditions=suspended, message="it is reached")
    refused = call("resume", "dear")
    assert refused.exit_code == 1
    assert "--cost-limit AMOUNT raises it" in refused.stderr
    assert call("resume", "dear", "--cost-limit", "2.5").exit_code == 0
    assert only(cluster, "PATCH") == {"spec": {"suspend": False, "cost": {"limit": 2.5}}}


def of_old(cluster: FakeCluster) -> None:
    """Runs that ended three months ago, and what holds some of them."""
    over = [runs.condition("Complete", "True", "Succeeded")]
    ended = {"state": "Succeeded", "conditions": over, "completionTime": "2025-12-01T12:00:00Z"}
    cluster.run("old", spec={}, **ended)
    cluster.run("base", spec={}, **ended)
    cluster.run("base-2", spec={}, **ended)
    cluster.run("best", spec={}, **ended, promotions=[{"kind": "Promoted", "version": "v1"}])
    cluster.run("shared", spec={"storage": {"checkpoints": {"claimName": "lab-volume"}}}, **ended)
    cluster.run("new", spec={"model": {"storageUri": "run://base/first"}}, state="Training")
    for name, made in (("old-checkpoints", "trainyard"), ("new-checkpoints", "trainyard"), ("lab-volume", "helm")):
        claim = {"metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": made}}}
        cluster.put(f"/api/v1/namespaces/lab/persistentvolumeclaims/{name}", claim)


def test_clean_lists_what_it_would_delete_and_touches_nothing(cluster: FakeCluster) -> None:
    of_old(cluster)
    result = call("clean", "--dry-run", "--claims")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "NAME", "base-2", "old", "shared", "base", "best", "3", "Next:",
    ]  # fmt: skip
    assert "base is kept: new starts from it" in result.stdout
    assert "best is kept: its result is promoted" in result.stdout
    assert "3 runs would be deleted, and claims old-checkpoints" in result.stdout
    assert not [method for method, _, _ in cluster.asked if method == "DELETE"]


def test_clean_deletes_what_it_listed(cluster: FakeCluster) -> None:
    of_old(cluster)
    assert call("clean", "--claims", "--older-than", "10d").exit_code == 0
    deleted = [path.rpartition("/")[2] for method, path, _ in cluster.asked if method == "DELETE"]
    assert deleted == ["base-2", "old", "shared", "old-checkpoints"]
    assert call("clean", "--older-than", "0").exit_code == 2


def test_clean_leaves_what_has_just_ended(cluster: FakeCluster) -> None:
    of_old(cluster)
    result = call("clean", "--older-than", "20000d", "--dry-run")
    assert result.stdout == "0 runs would be deleted\n"


def test_approve_is_an_annotation_with_the_reason(cluster: FakeCluster) -> None:
    cluster.run("dear", spec={"cost": {"requireApproval": True}}, state="Pending", message="waits for approval")
    result = call("approve", "dear", "--reason", "within the month's budget")
    assert result.exit_code == 0, result.output
    assert "dear may begin" in result.stdout
    annotations = only(cluster, "PATCH")["metadata"]["annotations"]
    assert annotations == {"trainyard.dev/approved": "within the month's budget"}


@pytest.mark.parametrize(
    ("spec", "status", "said"),
    [
        ({}, {}, "spec.cost.requireApproval is not true"),
        ({"cost": {"requireApproval": True}}, {"startTime": "2026-03-01T12:00:10Z"}, "has begun already"),
    ],
)
def test_what_waits_for_no_approval_gets_none(
    spec: dict[str, Any], status: dict[str, Any], said: str, cluster: FakeCluster
) -> None:
    cluster.run("dear", spec=spec, state="Training", **status)
    result = call("approve", "dear")
    assert result.exit_code == 1
    assert said in result.stderr
    assert not cluster.bodies("PATCH")


@pytest.mark.parametrize(
    "written", ["/checkpoints/step-10000", "step-10000", "10000", "/trainyard/checkpoints/step-10000/"]
)
def test_resume_from_a_step_of_the_run_makes_a_new_one(written: str, cluster: FakeCluster) -> None:
    runs.training(cluster)
    result = call("resume", "runbook", "--from", written)
    path = "runbook-01234567/checkpoints/step-00010000"
    assert result.stdout.splitlines()[0] == f"created runbook-2, which starts from {path}"
    created = only(cluster, "POST")
    assert created["spec"]["checkpoints"] == {"resumeFrom": path}
    assert created["spec"]["storage"]["checkpoints"]["claimName"] == "runbook-checkpoints"
    assert "status" not in created


def test_resume_from_another_run_or_a_path_is_handed_on(cluster: FakeCluster) -> None:
    runs.training(cluster)
    call("resume", "runbook", "--from", "older-run")
    call("resume", "runbook", "--from", "/trainyard/checkpoints/older-01234567/checkpoints")
    sources = [cluster.read(name)["spec"]["checkpoints"]["resumeFrom"] for name in ("runbook-2", "runbook-3")]
    assert sources == ["older-run", "older-01234567/checkpoints"]


def test_a_path_that_leaves_the_volume_is_wrong_use(cluster: FakeCluster) -> None:
    runs.training(cluster)
    result = call("resume", "runbook", "--from", "/checkpoints/../../etc")
    assert (result.exit_code, cluster.bodies("POST")) == (2, [])


def test_an_ended_run_is_not_resumed_but_retried(cluster: FakeCluster) -> None:
    runs.failed(cluster)
    result = call("resume", "broken")
    assert result.exit_code == 1
    assert "trainyard retry broken makes a new run" in result.stderr


def test_retry_takes_the_next_free_name_and_the_newest_checkpoint(cluster: FakeCluster) -> None:
    runs.training(cluster)
    run = cluster.read()
    run["status"]["conditions"] = [runs.condition("Failed", "True", "BackoffLimitExceeded")]
    run["metadata"]["annotations"] = {
        "trainyard.dev/cancel": "x",
        "team": "sre",
        "kubectl.kubernetes.io/last-applied": "y",
    }
    cluster.run("runbook-2")
    result = call("retry", "runbook")
    assert result.stdout.splitlines()[0] == "created runbook-3, which starts from step 100 of runbook"
    created = cluster.bodies("POST")[-1]
    assert created["spec"]["checkpoints"] == {"resumeFrom": "runbook-01234567"}
    assert created["metadata"]["annotations"] == {"team": "sre"}
    assert created["metadata"]["labels"] == {"agent": "sre"}


def test_retry_from_the_beginning(cluster: FakeCluster) -> None:
    runs.failed(cluster)
    assert "starts from the beginning" in call("retry", "broken").stdout
    assert "checkpoints" not in only(cluster, "POST")["spec"]


def test_a_run_that_goes_on_is_not_retried(cluster: FakeCluster) -> None:
    runs.training(cluster)
    assert "it retries by itself" in call("retry", "runbook").stderr


def test_names_of_new_runs_stay_within_their_length() -> None:
    assert [numbered("a", 2), numbered("a-2", 2), numbered("a-9", 3)] == ["a-2", "a-3", "a-11"]
    assert len(numbered("x" * 50, 2)) == 50


def test_promote_and_rollback_are_requests_with_a_new_value_each(cluster: FakeCluster) -> None:
    runs.succeeded(cluster)
    for verb in ("promote", "rollback", "promote"):
        assert call(verb, "served").exit_code == 0
    found = [body["metadata"]["annotations"] for body in cluster.bodies("PATCH")]
    assert [list(each) for each in found] == [
        ["trainyard.dev/promote"],
        ["trainyard.dev/rollback"],
        ["trainyard.dev/promote"],
    ]
    assert found[0] != found[2]


def test_what_its_gates_have_rejected_is_promoted_by_force_alone(cluster: FakeCluster) -> None:
    runs.succeeded(cluster)
    cluster.read("served")["status"]["conditions"][2] = runs.condition("GatesPassed", "False", "Rejected", "too slow")
    result = call("promote", "served")
    assert result.exit_code == 1
    assert "too slow" in result.stderr
    assert call("promote", "served", "--force").exit_code == 0


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_a_run_without_a_result_is_not_promoted(verb: str, cluster: FakeCluster) -> None:
    runs.training(cluster)
    assert call(verb, "runbook").exit_code == 1
    assert not cluster.bodies("PATCH")
