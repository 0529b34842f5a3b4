"""A cluster for each test that asks for one, and nothing of the machine's own."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.cli.fake_cluster import FakeCluster, fake_cluster

NOW = datetime(2026, 3, 1, 12, 10, 0, tzinfo=UTC)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """An API server that the kubeconfig leads to; it is ten past twelve."""
    monkeypatch.setattr("trainyard.client.runs.PAUSE", 0.01)
    monkeypatch.setattr("trainyard.client.logs.PAUSE", 0.01)
    monkeypatch.setattr("trainyard.cli.asking.POLL_SECONDS", 0.01)
    monkeypatch.setattr("trainyard.cli.fetching.PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("trainyard.cli.printing.now", lambda: NOW)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with fake_cluster(tmp_path) as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig))
        yield found
