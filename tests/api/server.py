"""A client of the API server for tests: JSON over HTTPS with kubectl's own credentials, and nothing cached.

It talks to the local cluster and to no other: tests create and delete objects, and a kubeconfig left over from other work
must not decide where.
"""

import base64
import copy
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import urllib3
import yaml

from tests import ROOT

KUBECONFIG = Path(os.environ.get("TRAINYARD_CLUSTER_DIR", ROOT / ".cluster")) / "kubeconfig"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Answer:
    """Status code and body of one request."""

    code: int
    body: dict[str, Any]

    @property
    def accepted(self) -> bool:
        return self.code < 300

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class NotTheLocalCluster(RuntimeError):
    """The kubeconfig leads to another machine, or is not there."""


class ApiServer:
    """Requests to the local API server."""

    def __init__(self, kubeconfig: Path = KUBECONFIG) -> None:
        if not kubeconfig.exists():
            raise NotTheLocalCluster(f"there is no {kubeconfig}: run `make cluster` first")
        config = yaml.safe_load(kubeconfig.read_text())
        context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
        user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
        self.url = cluster["server"]
        if urlsplit(self.url).hostname not in LOOPBACK:
            raise NotTheLocalCluster(f"{kubeconfig} leads to {self.url}; these tests only talk to this machine")
        self._impersonate: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory()
        self._pool = urllib3.PoolManager(
            ca_certs=self._write("ca", cluster["certificate-authority-data"]),
            cert_file=self._write("cert", user["client-certificate-data"]),
            key_file=self._write("key", user["client-key-data"]),
            timeout=30,
        )

    def _write(self, name: str, encoded: str) -> str:
        path = Path(self._folder.name) / name
        path.write_bytes(base64.b64decode(encoded))
        path.chmod(0o600)
        return str(path)

    def acting_as(self, user: str) -> Self:
        """The same server, asked as somebody else (`kubectl --as`)."""
        other = copy.copy(self)
        other._impersonate = {"Impersonate-User": user}
        return other

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: str
    ) -> Answer:
        """One request. `query` goes into the URL, for example dryRun="All"."""
        url = f"{self.url}{path}?{urlencode(query)}" if query else f"{self.url}{path}"
        headers = {"Content-Type": content_type, "Accept": "application/json", **self._impersonate}
        content = None if body is None else json.dumps(body)
        response = self._pool.request(method, url, body=content, headers=headers, redirect=False, retries=False)
        try:
            return Answer(response.status, json.loads(response.data or b"{}"))
        except json.JSONDecodeError:
            # A path that is not served yet is answered in plain text.
            return Answer(response.status, {"message": response.data.decode(errors="replace")})

    @contextmanager
    def stream(self, path: str, *, timeout: urllib3.Timeout, **query: str) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer without end (a watch, a log that is followed), read while it comes in.

        `timeout.read` is the longest silence; urllib3's ReadTimeoutError ends it.
        """
        url = f"{self.url}{path}?{urlencode(query)}" if query else f"{self.url}{path}"
        response = self._pool.request(
            "GET",
            url,
            headers={"Accept": "application/json"},
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=timeout,
        )
        try:
            yield response
        finally:
            # Not release_conn: the rest of the stream would be waited for.
            response.close()
