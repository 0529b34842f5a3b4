"""A proxy before the API server that can be made to fail as a busy or dying one does."""

import asyncio
import json
import random
import ssl
import threading
from collections import Counter
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from tests.api.server import KUBECONFIG, ApiServer

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length"})
FAULTS = (429, 500, 503, "cut")
"""What a request meets in a storm: an answer of that code, or a connection that ends without one."""


class ApiProxy:
    """Plain HTTP on loopback in, the cluster's own HTTPS out. `storm` is the share of requests that fail."""

    def __init__(self, folder: Path, server: ApiServer, *, seed: int) -> None:
        self.kubeconfig = folder / "proxied-kubeconfig"
        self.storm = 0.0
        self.failed: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._target = server.url
        self._tls = _client_tls(folder)
        self._loop = asyncio.new_event_loop()
        self._watches: set[asyncio.Task[object]] = set()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="api-proxy", daemon=True)
        self._thread.start()
        ready.wait(30)

    def close(self) -> None:
        """Answer nobody any more."""
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut_watches(self) -> None:
        """End every stream that is open, in the middle."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._watches])

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._open())
        ready.set()
        self._loop.run_forever()

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), auto_decompress=False
        )
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port = self._runner.addresses[0][1]
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "proxied",
                    "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "nobody"}}],
                    "clusters": [{"name": "proxied", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                    "users": [{"name": "nobody", "user": {}}],
                }
            )
        )

    async def _shut(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self._chance.random() < self.storm:
            fault = self._chance.choice(FAULTS)
            self.failed[str(fault)] += 1
            if fault == "cut":
                assert request.transport is not None
                # Half of them reach the API server first: the answer is lost, the deed is done.
                if self._chance.random() < 0.5:
                    await self._forward(request, None)
                request.transport.abort()
                return web.Response()
            return _status(int(fault))
        response = web.StreamResponse()
        task = asyncio.current_task()
        assert task is not None
        if "watch" in request.query:
            self._watches.add(task)
        try:
            return await self._forward(request, response)
        except aiohttp.ClientError:
            if response.prepared:
                raise
            return _status(503)
        finally:
            self._watches.discard(task)

    async def _forward(self, request: web.Request, response: web.StreamResponse | None) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method,
            f"{self._target}{request.raw_path}",
            headers=headers,
            data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None, connect=10),
        ) as answer:
            if response is None:
                await answer.read()
                return web.Response()
            response.set_status(answer.status, answer.reason)
            response.headers.update({k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP})
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


def _status(code: int) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "", "message": "a storm"}
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.Response(status=code, text=json.dumps(body), content_type="application/json", headers=headers)


def _client_tls(folder: Path) -> ssl.SSLContext:
    """What the cluster's own kubeconfig shows the API server."""
    import base64

    config = yaml.safe_load(KUBECONFIG.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    places = {}
    for name, text in (
        ("ca", cluster["certificate-authority-data"]),
        ("cert", user["client-certificate-data"]),
        ("key", user["client-key-data"]),
    ):
        places[name] = folder / f"proxy-{name}.pem"
        places[name].write_bytes(base64.b64decode(text))
        places[name].chmod(0o600)
    context = ssl.create_default_context(cafile=str(places["ca"]))
    context.load_cert_chain(str(places["cert"]), str(places["key"]))
    return context
