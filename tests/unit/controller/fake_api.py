"""An API server of loopback HTTP that answers as it is told."""

import asyncio
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from trainyard.controller.kube.cluster import Cluster


@dataclass
class Seen:
    """A request as the fake API server got it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeApi:
    """Answers from `answers` in order, then from `handler`, then 200 with what was sent."""

    url: str = ""
    answers: list[web.Response | Callable[[Seen], web.Response]] = field(default_factory=list)
    handler: Callable[[Seen], web.Response] | None = None
    seen: list[Seen] = field(default_factory=list)
    hold: asyncio.Event | None = None
    """Until it is set, requests get no answer."""

    def cluster(self, **kwargs: Any) -> Cluster:
        configuration = Configuration(host=self.url)
        configuration.api_key["BearerToken"] = "bearer secret-token\n"
        return Cluster(configuration, **kwargs)

    async def serve(self, request: web.Request) -> web.Response:
        text = await request.text()
        seen = Seen(
            request.method,
            request.path,
            dict(request.query),
            dict(request.headers),
            json.loads(text) if text else None,
        )
        self.seen.append(seen)
        if self.hold is not None:
            await self.hold.wait()
        if self.answers:
            answer = self.answers.pop(0)
            return answer(seen) if callable(answer) else answer
        if self.handler is not None:
            return self.handler(seen)
        return web.json_response(seen.body or {})


@asynccontextmanager
async def fake_api() -> Any:
    api = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", api.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    api.url = f"http://{host}:{port}"
    try:
        yield api
    finally:
        await runner.cleanup()


def status(
    code: int, reason: str, message: str = "said so", *, causes: list[dict[str, str]] | None = None, **details: Any
) -> web.Response:
    """An error as the API server sends it."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": {"causes": causes or [], **details},
    }
    return web.json_response(body, status=code)
