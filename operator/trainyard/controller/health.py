"""Two small applications: /healthz and /readyz for the kubelet, /metrics for Prometheus.

They are our own and not the watch engine's, because an operator that still waits for its Lease must be alive (and not
ready) long before it watches anything.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from trainyard.controller.ports import last

Problems = Callable[[], list[str]]
"""What is wrong; empty when all is well."""


def health_application(*, alive: Problems, ready: Problems) -> web.Application:
    """200 `ok`, or 503 with one problem per line."""

    def answer(problems: list[str]) -> web.Response:
        text, status = ("\n".join(problems), 503) if problems else ("ok", 200)
        return last(web.Response(text=f"{text}\n", status=status))

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
        return last(web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app
