"""An API server of the test's own on loopback, and a client of it."""

from pathlib import Path

import pytest

from tests.unit.controller.fake_kube import FakeKube
from trainyard.controller.kube.cluster import Cluster


@pytest.fixture
async def kube():
    served = FakeKube()
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def cluster(kube: FakeKube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "kubeconfig").write_text(kube.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    client = await Cluster.connect()
    yield client
    await client.close()
