"""`trainyard.client` and the command line at the real API server: log-in, rules, lists, watches, rights. Nothing stays there."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.server import KUBECONFIG, ApiServer
from tests.unit.cli.calling import call
from trainyard.client import NotAllowed, Rejected, Runs, TimedOut, connect

pytestmark = pytest.mark.api

MANIFEST: dict[str, Any] = {
    "apiVersion": "trainyard.dev/v1alpha1",
    "kind": "TrainingRun",
    "metadata": {"name": "a"},
    "spec": {
        "suspend": True,
        "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
        "datasets": [{"name": "d", "inline": {"text": "hello"}}],
        "training": {"method": "Pretrain", "maxSteps": 1},
    },
}


@pytest.fixture
def namespace(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One of the test's own, in a cluster on this machine (the fixture `server` takes no other)."""
    monkeypatch.setenv("KUBECONFIG", str(KUBECONFIG))
    name = f"trainyard-cli-{secrets.token_hex(3)}"
    server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        yield name
    finally:
        server.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def runs(namespace: str) -> Runs:
    return connect(namespace=namespace)


def test_a_run_is_created_listed_changed_and_deleted(runs: Runs) -> None:
    made = runs.create(MANIFEST)
    assert [run.uid for run in runs.list()] == [made.uid]
    assert runs.patch("a", {"spec": {"backoffLimit": 7}}).spec["backoffLimit"] == 7
    runs.delete("a")
    assert runs.list() == []


def test_a_broken_rule_is_told_in_the_api_servers_words(runs: Runs) -> None:
    with pytest.raises(Rejected, match="maxSteps") as error:
        runs.create({**MANIFEST, "spec": {**MANIFEST["spec"], "training": {"maxSteps": 0}}}, dry_run=True)
    assert error.value.reason == "Invalid"
    with pytest.raises(Rejected, match="unknown field"):
        runs.create({**MANIFEST, "spec": {**MANIFEST["spec"], "trainings": {}}}, dry_run=True)


def test_a_watch_sees_a_change_and_ends_in_time(runs: Runs) -> None:
    runs.create(MANIFEST)
    seen = []
    for run in runs.watch("a", seconds=20):
        seen.append(run)
        if run.spec.get("backoffLimit") == 5:
            break
        runs.patch("a", {"spec": {"backoffLimit": 5}})
    assert seen[-1].spec["backoffLimit"] == 5
    with pytest.raises(TimedOut):
        runs.wait("a", seconds=1)


def test_names_are_listed_without_the_objects(runs: Runs) -> None:
    runs.create(MANIFEST)
    assert runs.api.names(runs.path()) == ["a"]
    assert call("__complete", "logs", "-n", str(runs.namespace), "").stdout == "a\n:4\n"


def test_who_has_no_right_is_told_so(namespace: str) -> None:
    with pytest.raises(NotAllowed, match="cannot list resource"):
        connect(namespace=namespace, acting_as="nobody").list()
    assert call("list", "-n", namespace, "--as", "nobody").exit_code == 4


def test_the_verbs_of_the_command_line_change_what_they_say(runs: Runs) -> None:
    runs.create(MANIFEST)
    space = str(runs.namespace)
    assert call("resume", "a", "-n", space).exit_code == 0
    assert call("stop", "a", "-n", space).exit_code == 0
    assert call("cancel", "a", "-n", space, "--reason", "done with it").exit_code == 0
    run = runs.get("a")
    assert run.spec["suspend"] is True
    assert run.metadata["annotations"]["trainyard.dev/cancel"] == "done with it"
    assert call("resume", "a", "-n", space, "--from", "step-7", "--name", "b").exit_code == 0
    assert runs.get("b").spec["checkpoints"]["resumeFrom"] == f"{run.work_dir}/checkpoints/step-00000007"


def test_doctor_finds_the_schema_of_this_program(namespace: str) -> None:
    said = call("doctor", "-n", namespace).stdout
    assert "ok      CRD: trainingruns.trainyard.dev, the schema of this program" in said
    assert "ok      CRD: trainingschedules.trainyard.dev, the schema of this program" in said
