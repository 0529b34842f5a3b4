"""MLflow's REST interface (2.0, which versions 2 and 3 serve), for the tracker and for the registry of models.

The client library would bring thirty packages for a few requests.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

TIMEOUT = urllib3.Timeout(connect=5, read=60)


class Away(Exception):
    """No answer, or one that says to come again. `denied`: it says that these credentials are not enough."""

    def __init__(self, message: str, *, denied: bool = False) -> None:
        super().__init__(message)
        self.denied = denied


class Refused(Exception):
    """The server does not take this, now or later. `code` is MLflow's own word for why."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Rest:
    """A server, and who asks."""

    uri: str
    field: str
    """Where the spec names it, for messages."""
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    pool: urllib3.PoolManager = dataclasses.field(repr=False)

    @classmethod
    def at(cls, uri: str, *, secret: Mapping[str, str], field: str) -> Rest:
        """`secret` has username and password, or token; and the path of a CA certificate where one is given."""
        headers: Mapping[str, str] = {}
        if token := secret.get("token"):
            headers = {"Authorization": f"Bearer {token}"}
        elif "username" in secret:
            headers = dict(urllib3.make_headers(basic_auth=f"{secret['username']}:{secret.get('password', '')}"))
        pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False, ca_certs=secret.get("ca.crt path"))
        return cls(uri.rstrip("/"), field, headers, pool)

    def get(self, what: str, **fields: str) -> dict[str, Any]:
        """Raises Away or Refused, as all of them."""
        return self._request("GET", what, fields=fields)

    def post(self, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._request("POST", what, json=body)

    def put_file(self, path: str, file: Path) -> None:
        """Send a file to a path of the server."""
        url = f"{self.uri}/api/2.0/{path}"
        headers = {**self.headers, "Content-Length": str(file.stat().st_size)}
        with file.open("rb") as body:
            self._answer(url, lambda: self.pool.request("PUT", url, body=body, headers=headers))

    def _request(self, method: str, what: str, **content: Any) -> dict[str, Any]:
        url = f"{self.uri}/api/2.0/mlflow/{what}"
        return self._answer(url, lambda: self.pool.request(method, url, headers=self.headers, **content))

    def _answer(self, url: str, ask: Any) -> dict[str, Any]:
        try:
            answer = ask()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Away(f"{url}: {type(error).__name__}") from None
        text = answer.data.decode(errors="replace")
        if answer.status in (401, 403, 408, 429) or answer.status >= 500:
            denied = answer.status in (401, 403)
            hint = f"; check {self.field}.secretRef" if denied else ""
            raise Away(f"{url}: HTTP {answer.status}{hint}", denied=denied)
        try:
            body = json.loads(text or "{}")
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Away(f"{url} answers without JSON; is {self.field}.trackingUri right?")
        if answer.status >= 400:
            code = str(body.get("error_code", answer.status))
            raise Refused(f"{code}: {str(body.get('message', ''))[:300]}", code=code)
        return body
