"""The one way out of a look: HTTP requests for git, files and interfaces alike.

Redirects are followed here, step by step, so that each host is judged and credentials stay with the origin they were meant
for. What is sent back is read in pieces and never to an end that the server chooses.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlencode, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Url, make_headers, parse_url

from trainyard.controller.schedules.triggers.access import Access
from trainyard.controller.schedules.triggers.answer import SourceDown
from trainyard.controller.schedules.triggers.wall import Wall

CONNECT_SECONDS = 20.0
READ_SECONDS = 20.0
"""Without a byte. How long a look may take as a whole is not decided here."""
ANSWER_LIMIT = 2 * 2**20
"""Bytes of an answer in JSON."""
_PIECE = 64 * 2**10
_REDIRECTS = 5
_FOR_ONE_ORIGIN = ("authorization", "cookie")

Response = urllib3.BaseHTTPResponse


class Door:
    """Makes requests with the credentials of one source. dulwich takes it for a urllib3 pool manager."""

    headers: Mapping[str, str] = {}

    def __init__(self, access: Access, wall: Wall) -> None:
        self.access = access
        self._wall = wall
        self._managers: dict[str, urllib3.PoolManager] = {}  # by proxy

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        redirect: bool = True,
        preload_content: bool = False,
    ) -> Response:
        """Ask, and follow redirects of a GET. The body is not read yet."""
        assert not preload_content
        sent = dict(headers or {})
        for _ in range(_REDIRECTS + 1):
            answer = self._ask(method, url, sent, body)
            where = answer.get_redirect_location()
            if not where or method != "GET" or not redirect:
                answer.url = url
                return answer
            answer.close()
            following = urljoin(url, where)
            if _origin(following) != _origin(url):
                sent = {name: value for name, value in sent.items() if name.lower() not in _FOR_ONE_ORIGIN}
            url = following
        raise SourceDown(f"{url}: one redirect after the other, more than {_REDIRECTS}")

    def get_json(self, url: str, *, query: Mapping[str, str]) -> tuple[int, Any]:
        """Status and decoded body of a GET. Raises `SourceDown` when there is no answer or none in JSON."""
        try:
            answer = self.request(
                "GET", f"{url}?{urlencode(query)}", headers={**self.access.headers(), "Accept": "application/json"}
            )
            body = b"".join(pieces(answer, url, limit=ANSWER_LIMIT))
        except (HTTPError, OSError) as error:
            raise SourceDown(unreachable(url, error)) from None
        if answer.status in (401, 403):
            raise SourceDown(
                f"{url} refuses access (HTTP {answer.status}): check secretRef and what it is allowed to do"
            )
        try:
            return answer.status, json.loads(body)
        except (ValueError, RecursionError):
            raise SourceDown(f"{url} answers HTTP {answer.status} without JSON; is it the right address?") from None

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Response:
        parts = parse_url(url)
        if parts.scheme not in ("http", "https") or not parts.host:
            raise SourceDown(f"{url} is no http:// or https:// address")
        proxy = self._proxy(parts)
        # Past the manager's own way of asking, which would tidy up the path of an address that has been signed.
        pool = self._manager(proxy).connection_from_host(parts.host, parts.port, parts.scheme)
        given = urlsplit(url)
        target = (given.path or "/") + (f"?{given.query}" if given.query else "")
        return pool.urlopen(
            method,
            url if proxy and parts.scheme == "http" else target,
            body=body,
            headers=dict(headers),
            redirect=False,
            retries=False,
            assert_same_host=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        )

    def _proxy(self, parts: Url) -> str:
        """The proxy for this address, as the environment names it."""
        host, scheme = (parts.host or "").strip("[]"), parts.scheme or ""
        self._wall.judge_host(host)
        proxies = getproxies()
        proxy = proxies.get(scheme) or proxies.get("all") or ""
        if not proxy or proxy_bypass(host):
            return ""
        self._wall.judge_behind_proxy(host, parts.port or (443 if scheme == "https" else 80))
        return proxy if "://" in proxy else f"http://{proxy}"

    def _manager(self, proxy: str) -> urllib3.PoolManager:
        if proxy not in self._managers:
            context = self.access.context()
            if proxy:
                at = parse_url(proxy)
                self._wall.permit_proxy((at.host or "").strip("[]"), at.port or (443 if at.scheme == "https" else 80))
                login = make_headers(proxy_basic_auth=unquote(at.auth)) if at.auth else None
                self._managers[proxy] = urllib3.ProxyManager(proxy, proxy_headers=login, ssl_context=context)
            else:
                self._managers[proxy] = urllib3.PoolManager(ssl_context=context)
        return self._managers[proxy]


def pieces(answer: Response, url: str, *, limit: int) -> Iterator[bytes]:
    """The body, to its end or up to the limit. Raises `SourceDown` for more."""
    size = 0
    for piece in answer.stream(_PIECE):
        size += len(piece)
        if size > limit:
            answer.close()
            raise SourceDown(f"{url} sends more than {limit >> 20} MiB, and no more is read")
        yield piece


def unreachable(url: str, error: BaseException) -> str:
    """The sentence for a source that does not answer. The innermost cause says it best, and names no address."""
    while (inner := error.__cause__ or getattr(error, "reason", None)) and isinstance(inner, BaseException):
        error = inner
    if isinstance(error, (TimeoutError, urllib3.exceptions.TimeoutError)):
        what = "no answer in time"
    else:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{url} cannot be reached: {what}"


def _origin(url: str) -> tuple[str | None, str | None, int | None]:
    parts = parse_url(url)
    return parts.scheme, parts.host, parts.port or {"http": 80, "https": 443}.get(parts.scheme or "")
