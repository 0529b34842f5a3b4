"""Asking a source over HTTP: retries, bounds, and one sentence for each way in which it can go wrong.

Three kinds of answers are told apart. What will not change by asking again (an unknown host, a certificate that is not
trusted, 401, 403, 404, a query the server cannot read) ends the step as a fault of the manifest, with the server's own
words. What may pass (no answer, 5xx, 429) is tried again after a pause; a server that says how long to wait is believed,
up to a minute. And an answer larger than the caller wants to hold is broken off, so that it can ask for less.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3.util import Retry

from trainyard.trainer.data.collect.access import Credentials
from trainyard.trainer.data.sources import CONNECT_TIMEOUT, is_unknown, reason
from trainyard.trainer.errors import UserError, invalid_data, source_unavailable
from trainyard.trainer.log import say

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries; one more try than pauses."""
READ_TIMEOUT = 60.0
"""Seconds without a byte. Servers give up on a query of their own after one or two minutes."""
LONGEST_WAIT = 60.0
"""Seconds of a Retry-After that are believed."""
ANSWER_LIMIT = 8 * 2**20
"""Bytes. Decoded JSON takes about eight times as much memory, and several answers are decoded at once."""
TENANT_HEADER = "X-Scope-OrgID"
CONNECTIONS = 4

T = TypeVar("T")


class TooLarge(Exception):
    """The answer is larger than was asked for; ask for a shorter stretch."""


class Missing(UserError):
    """HTTP 404."""


class _Passing(Exception):
    """This try failed in a way that another one may not. `wait` is what the server asks for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Client:
    """One source. Threads may share it.

    Args:
        url: its address without the API's own path.
        access: credentials, and how messages begin.
        field: the field that holds the address, for messages.
    """

    def __init__(self, url: str, access: Credentials, *, field: str) -> None:
        self.url = url.rstrip("/")
        self.requests = 0
        self._access = access
        self._field = field
        self._lock = threading.Lock()
        self._headers = {"User-Agent": "trainyard", "Accept": "application/json"}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        elif access.username or access.password:
            basic = urllib3.make_headers(basic_auth=f"{access.username}:{access.password}")
            self._headers["Authorization"] = basic["authorization"]
        if access.tenant:
            self._headers[TENANT_HEADER] = access.tenant
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
            ca_certs=access.ca,
            retries=Retry(
                total=5, connect=0, read=0, status=0, other=0, redirect=5,
                remove_headers_on_redirect=("Authorization", "Cookie", TENANT_HEADER),
            ),
        )  # fmt: skip

    def get(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        limit: int = ANSWER_LIMIT,
        missing_ok: bool = False,
    ) -> Any:
        """The decoded JSON of a GET, or None for a 404 with `missing_ok`.

        Raises:
            UserError: there is no answer, or a refusal.
            TooLarge: the answer has more than `limit` bytes.
        """
        try:
            return self._retried(lambda: self._json("GET", path, limit, fields=_text(query)), path)
        except Missing:
            if missing_ok:
                return None
            raise

    def post(self, path: str, body: Any, *, limit: int = ANSWER_LIMIT) -> Any:
        """The same of a POST with a JSON body."""
        return self._retried(lambda: self._json("POST", path, limit, json=body), path)

    def post_form(self, path: str, query: Mapping[str, Any], *, limit: int = ANSWER_LIMIT) -> Any:
        """The same with the query in the body, where it may be longer than an address may be."""
        form = _text(query)
        return self._retried(lambda: self._json("POST", path, limit, fields=form, encode_multipart=False), path)

    def lines(self, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """The lines of a long answer, one at a time. A connection that breaks in the middle is no answer: ask again."""
        response = self._retried(lambda: self._open("GET", path, fields=_text(query)), path)
        try:
            rest = b""
            for block in response.stream(1 << 16):
                *whole, rest = (rest + block).split(b"\n")
                yield from whole
            if rest:
                yield rest
        except urllib3.exceptions.HTTPError as error:
            raise source_unavailable(
                f"{self._place(path)}: the connection broke in the middle of the answer: {reason(error)}",
                hint="it is tried again; if that keeps happening, ask for less with limit",
            ) from error
        finally:
            response.close()

    def refuse(self, path: str, message: str, *, hint: str) -> UserError:
        """A fault about this source, to be raised."""
        return invalid_data(f"{self._place(path)}: {message}", hint=hint)

    def _json(self, method: str, path: str, limit: int, **content: Any) -> Any:
        response = self._open(method, path, **content)
        try:
            parts, size = [], 0
            for block in response.stream(1 << 16):
                size += len(block)
                if size > limit:
                    raise TooLarge(f"more than {limit} bytes")
                parts.append(block)
        except urllib3.exceptions.HTTPError as error:
            raise _Passing(reason(error)) from error
        finally:
            response.close() if size > limit else response.release_conn()
        body = b"".join(parts)
        try:
            return json.loads(body)
        except ValueError as error:
            raise self.refuse(
                path, f"the answer is not JSON: {_shown(body)}", hint=f"check {self._field}: is it the server's API?"
            ) from error

    def _open(self, method: str, path: str, **content: Any) -> urllib3.BaseHTTPResponse:
        with self._lock:
            self.requests += 1
        address = self.url + path
        try:
            response = self._pool.request(
                method, address, headers=self._headers, preload_content=False, redirect=True, **content
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(path, error) from error
        if response.status >= 300:
            body = response.read(4096, decode_content=True)
            response.close()
            fields = content.get("fields") or {}
            query = fields.get("query") or fields.get("q")
            self._check(path, response.status, body, response.headers.get("Retry-After"), query)
        return response

    def _no_answer(self, path: str, error: urllib3.exceptions.HTTPError) -> Exception:
        host = urlsplit(self.url).hostname or ""
        if is_unknown(host):
            return self.refuse(path, f"the host {host} is unknown", hint=f"check {self._field} for typing errors")
        if isinstance(error, urllib3.exceptions.SSLError) or "CERTIFICATE" in str(error).upper():
            return self.refuse(
                path,
                f"the server's certificate is not trusted: {reason(error)}",
                hint="put the issuing CA into the secret of secretRef as ca.crt",
            )
        if isinstance(error, urllib3.exceptions.TimeoutError):
            return _Passing("no answer in time")
        return _Passing(reason(error))

    def _check(self, path: str, status: int, body: bytes, retry_after: str | None, query: str | None) -> None:
        said = _server_words(body)
        if status in (401, 403):
            advice = "check the values in" if self._access.has_credentials else "give credentials in"
            raise self.refuse(path, f"access is refused (HTTP {status}){said}", hint=f"{advice} secretRef")
        if status == 404:
            fault = self.refuse(path, f"there is nothing (HTTP 404){said}", hint=f"check {self._field}")
            raise Missing(fault.message, hint=fault.hint, reason=fault.reason, exit_code=fault.exit_code)
        if status in (408, 429) or status >= 500:
            raise _Passing(f"HTTP {status}{said}", _seconds(retry_after))
        if status in (400, 422):
            asked = f"the query {query!r}" if query else "the question"
            raise self.refuse(path, f"the server refuses {asked} (HTTP {status}){said}", hint="correct the query")
        raise self.refuse(path, f"HTTP {status}{said}", hint=f"check {self._field}")

    def _retried(self, attempt: Callable[[], T], path: str) -> T:
        for pause in (*PAUSES, None):
            try:
                return attempt()
            except _Passing as error:
                if pause is None or (error.wait or 0) > LONGEST_WAIT:
                    asked = f"; the server asks to wait {error.wait:.0f} s" if error.wait else ""
                    raise source_unavailable(
                        f"{self._place(path)} gave no answer in {len(PAUSES) + 1} tries: {error}{asked}",
                        hint="check that the server is up and reachable; what was fetched so far is kept",
                    ) from error
                say(f"{self._place(path)}: {error}; trying again")
                time.sleep(max(pause, error.wait or 0.0))
        raise AssertionError("unreachable")

    def _place(self, path: str) -> str:
        return f"{self._access.name}: {self._field} {self.url}{path}"


def _text(query: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (query or {}).items()}


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header; a date in it is read as well."""
    try:
        return Retry(0).parse_retry_after(retry_after) if retry_after is not None else None
    except urllib3.exceptions.InvalidHeader:
        return None


def _server_words(body: bytes) -> str:
    """What the server itself says is wrong: a JSON error in one of the usual places, or plain text."""
    try:
        value = json.loads(body)
    except ValueError:
        text = body.decode(errors="replace").strip()
        return f": {_shown(text.encode())}" if text and not text.startswith("<") else ""
    if isinstance(value, dict):
        for key in ("error", "message", "detail"):
            if value.get(key):
                found = value[key]
                return f": {_shown((found if isinstance(found, str) else json.dumps(found)).encode())}"
    return ""


def _shown(body: bytes) -> str:
    text = " ".join(body.decode(errors="replace").split())
    return text if len(text) <= 300 else text[:297] + "..."
