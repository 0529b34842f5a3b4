"""The commands that a verb prints ask the cluster, the namespace and the context that it was told itself."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli import runs
from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import NAMESPACE, FakeCluster

OTHERS = ("-n", NAMESPACE, "--context", "other")
MANIFEST = """
apiVersion: trainyard.dev/v1alpha1
kind: TrainingRun
metadata: {name: made, namespace: elsewhere}
spec: {image: i, command: [train]}
"""


def ended(cluster: FakeCluster) -> None:
    cluster.run(state="Succeeded", conditions=[runs.condition("Complete", "True", "Succeeded")])


def failed(cluster: FakeCluster) -> None:
    cluster.run(
        state="Failed", conditions=[runs.condition("Failed", "True", "StorageError", "the volume is full")], failure={}
    )


def suspended(cluster: FakeCluster) -> None:
    cluster.run(state="Suspended", spec={"suspend": True})


@pytest.fixture
def elsewhere(cluster: FakeCluster) -> FakeCluster:
    """The cluster is that of a context which is not the current one."""
    config = json.loads(cluster.kubeconfig.read_text())
    config["contexts"].append({"name": "other", "context": {"cluster": "c", "user": "u"}})
    cluster.kubeconfig.write_text(json.dumps(config))
    return cluster


def test_a_run_that_is_being_stopped_is_not_to_be_stopped_again(cluster: FakeCluster) -> None:
    runs.training(cluster)
    assert "stop" in {words[1] for words in commands(call("status", "runbook").stdout)}
    cluster.run(state="Pending", spec={"suspend": True}, message="suspending: waiting for the pod to stop")
    assert {words[1] for words in commands(call("status", "runbook").stdout)} == {"resume", "cancel", "checkpoints"}


@pytest.mark.parametrize(
    ("verb", "there"),
    [
        ("status", runs.training),
        ("status", ended),
        ("status", failed),
        ("status", suspended),
        ("stop", runs.training),
        ("resume", suspended),
        ("cancel", runs.training),
        ("retry", failed),
        ("promote", ended),
        ("rollback", ended),
        ("wait", ended),
        ("wait", failed),
        ("watch", failed),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_each_next_command_asks_where_this_one_asked(
    verb: str, there: Callable[[FakeCluster], None], elsewhere: FakeCluster
) -> None:
    there(elsewhere)
    printed = commands(call(verb, "runbook", *OTHERS).stdout)
    assert len(printed) >= 2
    for words in printed:
        assert words[-4:] == list(OTHERS), words


def test_explain_says_its_commands_for_the_same_place(elsewhere: FakeCluster) -> None:
    failed(elsewhere)
    assert "trainyard retry runbook -n lab --context other" in " ".join(
        call("explain", "runbook", *OTHERS).stdout.split()
    )
    runs.waiting(elsewhere)
    assert "trainyard gpu -n lab --context other;" in " ".join(call("explain", "queued", *OTHERS).stdout.split())


def test_refusals_say_it_too(elsewhere: FakeCluster) -> None:
    ended(elsewhere)
    assert "trainyard retry runbook -n lab --context other makes" in call("resume", "runbook", *OTHERS).stderr
    assert "trainyard explain runbook -n lab --context other says" in call("logs", "runbook", *OTHERS).stderr
    assert "trainyard list -A --context other looks" in call("list", "-n", "empty", "--context", "other").stdout


def test_the_namespace_of_the_manifest_is_that_of_what_follows(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(MANIFEST)
    printed = commands(call("run", "-f", str(tmp_path / "run.yaml")).stdout)
    assert [words[-2:] for words in printed] == [["-n", "elsewhere"]] * 3


def test_of_all_namespaces_it_is_the_runs_own(cluster: FakeCluster) -> None:
    ended(cluster)
    printed = commands(call("watch", "runbook", "-A").stdout)
    assert [words[-2:] for words in printed] == [["-n", NAMESPACE]] * 2


def test_what_is_printed_can_be_called(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    shutil.copy(cluster.kubeconfig, folder / "config")
    monkeypatch.delenv("KUBECONFIG")
    runs.training(cluster)
    status, *_ = commands(call("stop", "runbook", "--kubeconfig", str(folder / "config"), "--as", "ada").stdout)
    assert call(*status[1:]).exit_code == 0
    assert status[3:] == ["--kubeconfig", str(folder / "config"), "--as", "ada"]


def test_where_defaults_do_nothing_is_added(cluster: FakeCluster) -> None:
    runs.training(cluster)
    assert commands(call("stop", "runbook").stdout)[0] == ["trainyard", "status", "runbook"]


def commands(text: str) -> list[list[str]]:
    """Those after `Next:`, in words."""
    lines = text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("Next: "))
    return [shlex.split(line[6:]) for line in lines[first:]]
