"""HTTP to the API server: one pooled session, JSON in and out, every failure as one of `errors`.

Nothing is retried here: the work queue does that. Credentials that were refused are read anew before the next request,
since tokens and client certificates are renewed under a running operator. The session never looks at environment
variables by itself (it would search them and ~/.netrc at every request); a proxy is found out once, with the
credentials.
"""

import asyncio
import json
import ssl
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from trainyard.controller.kube import errors
from trainyard.controller.kube.errors import Request

Object = dict[str, Any]
OnRequest = Callable[[str, str, int, float], None]
"""Called after each request: verb, resource (`trainingruns/status` for a subresource), HTTP status or 0, seconds."""

REQUEST_TIMEOUT = 30.0
CONNECT_TIMEOUT = 10.0
KEEP_ALIVE = 75.0
"""Seconds an idle connection is kept: longer than an idle operator's pauses, so that it rarely does a TLS handshake."""
CONNECTIONS = 32
RELOAD_PAUSE = 10.0
"""Seconds between two reads of refused credentials."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
USER_AGENT = "trainyard-operator"


@dataclass(frozen=True, repr=False)
class Credentials:
    """How to reach the API server. `authorization` is the whole header, with its scheme. Files are PEM."""

    server: str
    ca_file: str | None = None
    insecure: bool = False
    authorization: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    tls_server_name: str | None = None
    proxy: str | None = None

    def tls(self) -> ssl.SSLContext:
        """What verifies the server, and shows it the client certificate if there is one."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, keyfile=self.key_file)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Transport:
    """Sends requests. `credentials` is asked before each one and must be cheap; `reload` reads them anew."""

    def __init__(
        self,
        *,
        credentials: Callable[[], Awaitable[Credentials]],
        reload: Callable[[], Awaitable[None]],
        on_request: OnRequest | None = None,
        connections: int = CONNECTIONS,
    ) -> None:
        self._credentials = credentials
        self._reload_credentials = reload
        self._reloaded_at = float("-inf")
        self._on_request = on_request
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(
        self,
        request: Request,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Object:
        """One request and its answer. Raises a `ClusterError` for all but a JSON object with a status below 400."""
        started = time.perf_counter()
        status = 0
        try:
            status, content, retry_after = await self._exchange(method, path, query, body, content_type, accept)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.Transient(_describe(error), request=request, reason=type(error).__name__) from error
        finally:
            if self._on_request is not None:
                self._on_request(request.verb, request.resource, status, time.perf_counter() - started)
        answer = _decode(content)
        if status >= 400:
            if status == 401:
                await self._reload()
            raise errors.from_response(request, status, answer, retry_after=retry_after)
        if not isinstance(answer, dict):
            raise errors.Transient("the answer is not a JSON object", request=request, status=status)
        return answer

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
        accept: str,
    ) -> tuple[int, bytes, str | None]:
        credentials = await self._credentials()
        if self._session is None:
            self._session = self._open(credentials)
        headers = {"Accept": accept, "User-Agent": USER_AGENT}
        if credentials.authorization:
            headers["Authorization"] = credentials.authorization
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body, separators=(",", ":")).encode()
        async with self._session.request(
            method,
            credentials.server + quote(path),
            params=query,
            headers=headers,
            data=data,
            proxy=credentials.proxy,
            server_hostname=credentials.tls_server_name,
        ) as response:
            return response.status, await response.read(), response.headers.get("Retry-After")

    def _open(self, credentials: Credentials) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, ssl=credentials.tls(), keepalive_timeout=KEEP_ALIVE
            ),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def _reload(self) -> None:
        if time.monotonic() - self._reloaded_at < RELOAD_PAUSE:
            return
        self._reloaded_at = time.monotonic()
        await self._reload_credentials()
        session, self._session = self._session, None
        if session is not None:
            # Other tasks may still have requests under way on it.
            asyncio.get_running_loop().call_later(REQUEST_TIMEOUT, lambda: asyncio.ensure_future(session.close()))


def environment_proxy(server: str) -> str | None:
    """The proxy that $HTTPS_PROXY (or $HTTP_PROXY) names for this server, unless $NO_PROXY excepts it."""
    parts = urlsplit(server)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content) if content else {}
    except ValueError:
        return content[:1024].decode(errors="replace")


def _describe(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer from the API server within {REQUEST_TIMEOUT:g} s"
    return f"cannot reach the API server: {error or type(error).__name__}"
