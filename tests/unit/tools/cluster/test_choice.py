"""Which cluster a command means: never one that merely happened to be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import commands, existing
from cluster.check import objects
from cluster.errors import ClusterError

OWN = Path("/repo/.cluster/kubeconfig")


def choose(docker: bool = False, **environment: str) -> str:
    return commands.kind_of_cluster(environment, own=OWN, docker_answers=lambda: docker)


def test_local_where_nothing_else_is_in_sight() -> None:
    assert choose() == "local"
    assert choose(CLUSTER="") == "local"
    assert choose(KUBECONFIG=str(OWN)) == "local"


@pytest.mark.parametrize("name", ["local", "kind", "existing"])
def test_the_variable_decides(name: str) -> None:
    assert choose(docker=True, CLUSTER=name, KUBECONFIG="/home/me/.kube/config") == name


def test_without_the_variable_a_choice_has_to_be_made() -> None:
    with pytest.raises(ClusterError, match="KUBECONFIG is /home/me/config: say which cluster you mean"):
        choose(KUBECONFIG="/home/me/config")
    with pytest.raises(ClusterError, match="a Docker engine answers here: say which"):
        choose(docker=True)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ClusterError, match="CLUSTER is 'minikube'; it must be one of local, kind, existing"):
        choose(CLUSTER="minikube")


def test_the_command_ends_with_status_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLUSTER", "minikube")
    assert commands.main(["up"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_fault_commands_need_the_local_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLUSTER", "existing")
    assert commands.main(["node", "stop", "arcanine"]) == 1
    assert "offered by CLUSTER=local only" in capsys.readouterr().err


def test_an_existing_cluster_is_used_only_by_its_name() -> None:
    existing.confirm("prod", given="prod", ask=None)
    existing.confirm("prod", given=None, ask=lambda: " prod \n")
    with pytest.raises(
        ClusterError, match="TRAINYARD_CONTEXT is 'test', but the current context is 'prod'; nothing was"
    ):
        existing.confirm("prod", given="test", ask=lambda: "prod")
    with pytest.raises(ClusterError, match="the answer was '', but"):
        existing.confirm("prod", given=None, ask=lambda: "")
    with pytest.raises(ClusterError, match="set TRAINYARD_CONTEXT=prod to allow that"):
        existing.confirm("prod", given=None, ask=None)


def test_what_the_check_runs_keeps_to_the_restricted_standard() -> None:
    templates = [item["spec"]["template"]["spec"] for item in objects("image") if "template" in item["spec"]]
    assert len(templates) == 4
    for pod in templates:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
