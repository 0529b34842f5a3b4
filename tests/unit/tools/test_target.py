"""Which cluster is touched: never one that was not named."""

import stat
from pathlib import Path

import pytest

import deploy
import target


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that says that its current context is `homelab`, and a state folder without programs."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho homelab\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(target, "STATE", tmp_path)
    for variable in ("CLUSTER", "TRAINYARD_CONTEXT", "TRAINYARD_REGISTRY", "OPERATOR_IMAGE", "TRAINER_IMAGE"):
        monkeypatch.delenv(variable, raising=False)
    return program


def test_the_local_cluster_needs_no_confirmation(kubectl: Path) -> None:
    target.confirm_context()


def test_an_existing_cluster_is_not_touched_without_its_name(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "existing")
    with pytest.raises(target.Refused, match="TRAINYARD_CONTEXT=homelab"):
        target.confirm_context()


def test_another_name_than_the_current_one_is_no_confirmation(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "existing")
    monkeypatch.setenv("TRAINYARD_CONTEXT", "production")
    with pytest.raises(target.Refused, match="was not confirmed"):
        target.confirm_context()


def test_its_own_name_is(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "existing")
    monkeypatch.setenv("TRAINYARD_CONTEXT", "homelab")
    target.confirm_context()


def test_an_unknown_kind_of_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "minikube")
    with pytest.raises(target.Refused, match="local, kind, existing"):
        target.cluster()


def test_local_tools_never_take_the_users_kubeconfig(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/else")
    with pytest.raises(target.Refused, match="run `make cluster` first"):
        target.environment()
    (target.STATE / "kubeconfig").touch()
    assert target.environment()["KUBECONFIG"] == str(target.STATE / "kubeconfig")


def test_an_existing_cluster_needs_images_that_it_can_pull(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "existing")
    with pytest.raises(target.Refused, match=r"TRAINYARD_REGISTRY .* OPERATOR_IMAGE"):
        deploy.image_values()
    monkeypatch.setenv("TRAINYARD_REGISTRY", "registry.example.org/team")
    assert deploy.image_values()["trainerImage.repository"] == "registry.example.org/team/trainyard/trainer"
    monkeypatch.delenv("TRAINYARD_REGISTRY")
    monkeypatch.setenv("OPERATOR_IMAGE", "registry.example.org:5000/a/operator:1")
    monkeypatch.setenv("TRAINER_IMAGE", "registry.example.org:5000/a/trainer")
    with pytest.raises(target.Refused, match=r"TRAINER_IMAGE=.* has no tag"):
        deploy.image_values()
    monkeypatch.setenv("TRAINER_IMAGE", "registry.example.org:5000/a/trainer:2")
    assert deploy.image_values() == {
        "image.repository": "registry.example.org:5000/a/operator",
        "image.tag": "1",
        "trainerImage.repository": "registry.example.org:5000/a/trainer",
        "trainerImage.tag": "2",
    }


def test_a_failing_program_is_shown_with_its_words(kubectl: Path) -> None:
    (target.STATE / "kubeconfig").touch()
    kubectl.write_text("#!/bin/sh\necho 'no such namespace' >&2\nexit 1\n")
    with pytest.raises(target.Refused, match="kubectl get pods failed:\nno such namespace"):
        target.call("kubectl", "get", "pods")
