"""Requests to the API server over one connection that is kept, JSON in and out; and answers without end, line by line.

Only the standard library: its HTTP client is there in twenty milliseconds. Nothing is tried twice but a request on a kept
connection that the server has closed meanwhile, and one whose credentials a plugin can renew.
"""

import http.client
import json
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from trainyard.client.errors import Away, ClientError, NoAccess, NotAllowed, NotFound, Rejected
from trainyard.client.kubeconfig import Access, logged_in

Object = dict[str, Any]
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MERGE_PATCH = "application/merge-patch+json"
FIELD_MANAGER = "trainyard-cli"
"""Not kubectl's own name: Flux takes back whatever stands under that one, and would remove what was asked for here."""
PAGE = 500


class Api:
    """One API server."""

    def __init__(self, access: Access, *, timeout: float = 30, acting_as: str = "") -> None:
        self.access = access
        self._timeout = timeout
        self._acting_as = acting_as
        self._login: Access | None = None
        self._tls: ssl.SSLContext | None = None
        self._kept: http.client.HTTPConnection | None = None

    def get(self, path: str, **query: str) -> Object:
        return self.send("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any], **query: str) -> Object:
        return self.send("POST", path, body=body, query={"fieldManager": FIELD_MANAGER, **query})

    def patch(self, path: str, body: Mapping[str, Any], **query: str) -> Object:
        """A JSON merge patch."""
        query = {"fieldManager": FIELD_MANAGER, **query}
        return self.send("PATCH", path, body=body, query=query, content_type=MERGE_PATCH)

    def delete(self, path: str, **query: str) -> Object:
        return self.send("DELETE", path, query=query)

    def items(self, path: str, **query: str) -> Iterator[Object]:
        """What a list holds, read in pages."""
        following: dict[str, str] = {}
        while True:
            page = self.get(path, **query, limit=str(PAGE), **following)
            yield from page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            following = {"continue": token}

    def names(self, path: str) -> list[str]:
        """The names of what a list holds, and nothing else of it: a tenth of the bytes."""
        page = self.send("GET", path, query={"limit": str(PAGE)}, accept=METADATA)
        return [str(entry["metadata"]["name"]) for entry in page.get("items") or ()]

    def text(self, path: str, **query: str) -> str:
        """An answer that is no JSON, such as a log."""
        return self._exchange("GET", path, query=query).decode(errors="replace")

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Object:
        """One request and its answer. Raises a ClientError for all but success."""
        content = self._exchange(method, path, body=body, query=query, content_type=content_type, accept=accept)
        try:
            found = json.loads(content)
        except ValueError as error:
            raise Away(f"{self.access.server} does not answer like an API server: is it a proxy?") from error
        return found if isinstance(found, dict) else {}

    def lines(self, path: str, *, silence: float, **query: str) -> Iterator[bytes]:
        """An answer without end (a watch, a log that is followed). It ends when the server ends it, when the connection
        breaks, and after `silence` seconds without a word."""
        connection = self._connect(timeout=silence)
        try:
            try:
                response = self._ask(connection, "GET", path, query=query)
                if response.status >= 400:
                    raise _refusal(response.status, response.read(), self.access)
            except (OSError, http.client.HTTPException) as error:
                raise self._away(error) from error
            try:
                # readline of an answer in pieces gives what has come, as soon as it has.
                while line := response.readline():
                    yield line
            except (OSError, http.client.HTTPException):
                return
        finally:
            connection.close()

    def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> bytes:
        renewed = False
        while True:
            fresh = self._kept is None
            try:
                connection = self._kept = self._kept or self._connect(timeout=self._timeout)
                response = self._ask(
                    connection, method, path, body=body, query=query, content_type=content_type, accept=accept
                )
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A timeout may have been carried out; what a closed connection has refused has not.
                if not fresh and not isinstance(error, TimeoutError):
                    continue
                raise self._away(error) from error
            if response.will_close:
                self.close()
            if response.status == 401 and self.access.plugin is not None and not renewed:
                renewed, self._login, self._tls = True, None, None
                self.close()
                continue
            if response.status >= 400:
                raise _refusal(response.status, content, self.access)
            return content

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> http.client.HTTPResponse:
        login = self._logged_in()
        headers = {"Accept": accept, "User-Agent": "trainyard"}
        if login.token or login.login:
            headers["Authorization"] = login.login or f"Bearer {login.token}"
        if self._acting_as:
            headers["Impersonate-User"] = self._acting_as
        if body is not None:
            headers["Content-Type"] = content_type
        base = urlsplit(self.access.server).path
        target = base + quote(path) + (f"?{urlencode(query)}" if query else "")
        connection.request(method, target, json.dumps(body) if body is not None else None, headers)
        return connection.getresponse()

    def _logged_in(self) -> Access:
        if self._login is None:
            self._login = logged_in(self.access)
        return self._login

    def _connect(self, *, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.access.server)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        through = urlsplit(self.access.proxy or _proxy_of(self.access.server))
        if through.hostname and through.scheme != "http":
            raise NoAccess(f"a proxy of kind {through.scheme} cannot be used here: give one that begins with http://")
        to = (through.hostname, through.port or 80) if through.hostname else (host, port)
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = _Tls(
                *to, self._context(), self.access.server_name or host, timeout
            )
        else:
            connection = http.client.HTTPConnection(*to, timeout=timeout)
        if through.hostname:
            connection.set_tunnel(host, port)
        try:
            connection.connect()
        except OSError as error:
            raise self._away(error) from error
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            login = self._logged_in()
            try:
                context = ssl.create_default_context(cadata=login.authority or None)
                if login.insecure:
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                if login.certificate:
                    _show(context, login.certificate, login.key)
            except (ssl.SSLError, OSError) as error:
                raise NoAccess(f"the certificates in the kubeconfig cannot be used: {error}") from error
            self._tls = context
        return self._tls

    def _away(self, error: Exception) -> ClientError:
        where = f"{self.access.server} (context {self.access.context})"
        if isinstance(error, ClientError):
            return error
        if isinstance(error, TimeoutError):
            return Away(f"no answer from {where} within {self._timeout:g} s: is the cluster up?")
        if isinstance(error, ssl.SSLCertVerificationError):
            return Away(f"the certificate of {where} is not to be trusted: {error.verify_message}")
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Away(f"cannot reach {where}: {said}; is the cluster up, and the context the right one?")


class _Tls(http.client.HTTPSConnection):
    """The one place that knows under which name the server shows its certificate, with a proxy before it or without."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, server_name: str, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._shown, self._as = context, server_name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._shown.wrap_socket(self.sock, server_hostname=self._as)


def _show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """OpenSSL reads a client's certificate from a file only; this one is there for that moment, for nobody else."""
    descriptor, name = tempfile.mkstemp(prefix="trainyard-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(certificate.rstrip() + "\n" + key)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()


def _proxy_of(server: str) -> str:
    if not any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
        return ""
    import urllib.request

    parts = urlsplit(server)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")


def _refusal(status: int, content: bytes, access: Access) -> ClientError:
    try:
        said = json.loads(content)
        message, reason = str(said.get("message") or ""), str(said.get("reason") or "")
    except (ValueError, AttributeError):
        message, reason = " ".join(content[:200].decode(errors="replace").split()), ""
    message = message or f"the API server answered {status}"
    if status == 401:
        return NotAllowed(f"{access.server} does not know you (context {access.context}): log in again")
    if status == 403:
        return NotAllowed(message)
    if status == 404:
        return NotFound(message)
    if status == 429 or status >= 500:
        return Away(f"{access.server} cannot answer just now ({status}): {message}; try again")
    return Rejected(message, reason=reason)
