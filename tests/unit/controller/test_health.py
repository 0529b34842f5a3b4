"""The ports for probes and for Prometheus, over real HTTP."""

import aiohttp
import pytest

from trainyard.controller.health import health_application, metrics_application
from trainyard.controller.metrics import Metrics
from trainyard.controller.ports import Served


@pytest.fixture
async def answers():
    problems: dict[str, list[str]] = {"alive": [], "ready": []}
    metrics = Metrics()
    ports = [
        Served(
            health_application(alive=lambda: problems["alive"], ready=lambda: problems["ready"]),
            port=0,
            host="127.0.0.1",
        ),
        Served(metrics_application(metrics.registry), port=0, host="127.0.0.1"),
    ]
    health, scrape = [await port.start() for port in ports]
    async with aiohttp.ClientSession() as http:

        async def get(path: str) -> tuple[int, str]:
            port = scrape if path == "/metrics" else health
            async with http.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

        yield problems, get
    for port in ports:
        await port.stop()


async def test_health_names_the_problem(answers):
    problems, get = answers
    assert [await get("/healthz"), await get("/readyz")] == [(200, "ok\n"), (200, "ok\n")]
    problems["ready"].append("the lease is not held by this process")
    assert await get("/healthz") == (200, "ok\n")
    assert await get("/readyz") == (503, "the lease is not held by this process\n")
    problems["alive"].append("a reconcile has been running for 601 s")
    assert await get("/healthz") == (503, "a reconcile has been running for 601 s\n")


async def test_metrics_are_served_as_text(answers):
    _, get = answers
    code, text = await get("/metrics")
    assert code == 200
    assert "trainyard_build_info{" in text
    assert "process_resident_memory_bytes" in text
