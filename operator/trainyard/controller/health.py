"""Small HTTP servers: /healthz and /readyz for the kubelet, /metrics for Prometheus.

They are our own and not the watch engine's, because an operator that still waits for its Lease must be alive (and not
ready) long before it watches anything.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Problems = Callable[[], list[str]]
"""What is wrong; empty when all is well."""


def health_application(*, alive: Problems, ready: Problems) -> web.Application:
    """200 `ok`, or 503 with one problem per line."""

    def answer(problems: list[str]) -> web.Response:
        return web.Response(text="\n".join(problems) + "\n", status=503) if problems else web.Response(text="ok\n")

    async def healthz(request: web.Request) -> web.Response:
        return answer(alive())

    async def readyz(request: web.Request) -> web.Response:
        return answer(alive() + ready())

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def metrics_application(registry: CollectorRegistry) -> web.Application:
    """The registry in Prometheus' text format."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


class Served:
    """One application on one port."""

    def __init__(self, application: web.Application, *, port: int, host: str | None = None) -> None:
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        self._host = host
        self._port = port

    async def start(self) -> int:
        """Listen; returns the port (its own choice when 0 was asked for). Raises `OSError` when it is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Answer what has been asked already, then close."""
        await self._runner.cleanup()
