"""What every end-to-end test gets: the local cluster with the operator installed, and a namespace of its own.

The tests kill processes and stop nodes, so they refuse any cluster but the one on this machine.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.api.server import ApiServer, NotTheLocalCluster
from tests.e2e.installed import NAME, NAMESPACE
from tests.e2e.kube import DEPLOYMENTS, Kube, Object, namespace_of
from trainyard.controller.kube.resources import NAMESPACES

KILLS = int(os.environ.get("TRAINYARD_KILLS", "3"))
"""How often the tests that kill something do so. The published figures are made with 20."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts and "unit" not in item.keywords:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The local cluster; the operator has to be there and available."""
    try:
        server = ApiServer()
    except NotTheLocalCluster as error:
        pytest.fail(str(error))
    kube = Kube(server)
    if kube.get(DEPLOYMENTS, NAMESPACE, NAME) is None:
        pytest.fail("the operator is not installed: run `make install` first")
    kube.wait(DEPLOYMENTS, NAMESPACE, NAME, _available, seconds=120, what="an available operator")
    return kube


def _available(deployment: Object | None) -> bool:
    status = (deployment or {}).get("status", {})
    return bool(status.get("availableReplicas", 0) >= 1)


@contextmanager
def made_space(kube: Kube, request: pytest.FixtureRequest, title: str) -> Iterator[str]:
    """A namespace with the strictest Pod Security; with TRAINYARD_KEEP set it stays when a test in it failed."""
    short = re.sub(r"[^a-z0-9]+", "-", title.lower())[:35].strip("-")
    name = f"e2e-{short}-{secrets.token_hex(2)}"
    namespace_of(kube, name, labels={"pod-security.kubernetes.io/enforce": "restricted", "trainyard.dev/test": "e2e"})
    failed_before = request.session.testsfailed
    yield name
    if request.session.testsfailed == failed_before or not os.environ.get("TRAINYARD_KEEP"):
        kube.delete(NAMESPACES, None, name)


@pytest.fixture
def space(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own."""
    with made_space(kube, request, request.node.name.removeprefix("test_")) as name:
        yield name


@pytest.fixture(scope="module")
def wide_space(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for all tests of a file."""
    with made_space(kube, request, request.path.stem.removeprefix("test_")) as name:
        yield name


@pytest.fixture
def kills() -> int:
    """How often to kill."""
    return KILLS
