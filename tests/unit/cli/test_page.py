"""page: which operator a port is forwarded to, and what is said where there is none."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import FakeCluster

DEPLOYMENTS = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"


def install(
    cluster: FakeCluster, *, namespace: str = "trainyard-system", ports: tuple[str, ...] = ("metrics", "page")
) -> None:
    labels = {"app.kubernetes.io/name": "trainyard"}
    container: dict[str, Any] = {
        "name": "operator",
        "ports": [{"name": name, "containerPort": 8082 if name == "page" else 9090} for name in ports],
    }
    cluster.put(
        DEPLOYMENTS.format(namespace=namespace, name="trainyard"),
        {
            "metadata": {"name": "trainyard", "namespace": namespace, "labels": labels},
            "spec": {"template": {"spec": {"containers": [container]}}},
        },
    )


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What kubectl was called with."""
    program, calls = tmp_path / "kubectl", tmp_path / "calls"
    program.write_text(f'#!/bin/sh\necho "$@" > {calls}\nexit 7\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return calls


def test_a_port_is_forwarded_to_the_operator_that_is_found(cluster: FakeCluster, calls: Path) -> None:
    install(cluster)
    result = call("page", "--port", "9000")
    assert result.stdout.startswith("http://localhost:9000  (the page of trainyard-system/trainyard")
    assert calls.read_text().split() == [
        *("port-forward", "--namespace", "trainyard-system", "deployment/trainyard", "9000:8082"),
    ]
    assert result.exit_code == 7, "it ends as kubectl does"


@pytest.mark.parametrize(
    ("there", "words", "said"),
    [
        ({}, (), "there is no operator in this cluster"),
        ({}, ("--operator-namespace", "ml"), "there is no operator in namespace ml"),
        ({"a": ("page",), "b": ("page",)}, (), "several operators: say --operator-namespace, one of a, b"),
        ({"a": ("metrics",)}, (), "serves no page: set the chart value page.listen to Loopback"),
        ({"a": ("page",)}, ("--port", "70000"), "--port 70000 is no port"),
    ],
)
def test_where_no_page_can_be_opened_it_says_why(
    there: dict[str, tuple[str, ...]], words: tuple[str, ...], said: str, cluster: FakeCluster, calls: Path
) -> None:
    for namespace, ports in there.items():
        install(cluster, namespace=namespace, ports=ports)
    result = call("page", *words)
    assert result.exit_code in (2, 3)
    assert said in " ".join(result.stderr.split())
    assert not calls.exists()
