"""Ollama's API, as far as an export needs it: blobs, create, show, and a question.

A refusal may come in the middle of a stream that began with HTTP 200, as a line with `error`; a server that is away is tried
again. Nothing of an answer is shown that could hold the token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from trainyard.trainer.errors import UserError, first_line, invalid_config, source_unavailable, storage

TRIES = 3
PAUSES = (1.0, 3.0)
ANSWER_SECONDS = 600
FULL = ("no space left", "disk quota exceeded", "not enough space")


@dataclass(frozen=True)
class Ollama:
    """A server. `field` is where it stands in the spec, for messages."""

    url: str
    field: str
    headers: dict[str, str]
    pool: urllib3.PoolManager

    @classmethod
    def at(cls, url: str, *, field: str, token: str | None = None, ca_file: str | None = None) -> Ollama:
        """A client; nothing is asked yet."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=10, read=ANSWER_SECONDS), retries=False, ca_certs=ca_file
        )
        return cls(url.rstrip("/"), field, headers, pool)

    def version(self) -> str:
        """Of the server; proof that it is one."""
        found = self._json("GET", "/api/version").get("version")
        if not isinstance(found, str) or not found:
            raise invalid_config(
                f"{self.field}.url {self.url}: something answers there, and it is no Ollama server",
                hint="check the port, and leave out any path",
            )
        return found

    def has_blob(self, digest: str) -> bool:
        """Whether the server has the file already."""
        return self._request("HEAD", f"/api/blobs/{digest}", allowed=(404,)).status == 200

    def push_blob(self, digest: str, file: Path) -> None:
        """Send a file; the server compares the digest."""
        with open(file, "rb") as stream:
            size = file.stat().st_size
            self._request("POST", f"/api/blobs/{digest}", body=stream, headers={"Content-Length": str(size)})

    def create(self, body: dict[str, Any]) -> None:
        """Make a model of blobs."""
        last = ""
        for line in self._lines("/api/create", {**body, "stream": True}):
            last = str(line.get("status", last))
        if last != "success":
            raise source_unavailable(
                f"{self.field}: Ollama ended in the middle of making the model ({last or 'no word'})",
                hint="look at the server's log; the next attempt goes on",
            )

    def show(self, model: str) -> dict[str, Any] | None:
        """What the server knows of a model; None if it has none of this name."""
        reply = self._request("POST", "/api/show", body={"model": model}, allowed=(404,))
        return None if reply.status == 404 else _parsed(reply)

    def digest_of(self, model: str) -> str:
        """Of a model, as the server calls it."""
        wanted = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
        for entry in self._json("GET", "/api/tags").get("models") or ():
            if entry.get("name") == wanted or entry.get("model") == wanted:
                return f"sha256:{entry.get('digest', '')}"
        raise source_unavailable(
            f"{self.field}: Ollama has made {wanted} and does not list it",
            hint="did somebody remove it? the next attempt makes it again",
        )

    def running(self) -> list[dict[str, Any]]:
        """What is in memory, with its size."""
        return list(self._json("GET", "/api/ps").get("models") or ())

    def keep(self, model: str, how_long: str | int) -> None:
        """Say how long it is to stay in memory from now on."""
        self._request(
            "POST", "/api/generate", body={"model": model, "keep_alive": how_long, "stream": False}, allowed=(404,)
        )

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """An answer in a conversation."""
        return self._json("POST", "/api/chat", {**body, "stream": False})

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """A text that goes on."""
        return self._json("POST", "/api/generate", {**body, "stream": False})

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        found = _parsed(self._request(method, path, body=body))
        if "error" in found:
            raise self._refused(200, str(found["error"]))
        return found

    def _lines(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for line in self._request("POST", path, body=body).data.splitlines():
            if line.strip():
                found = json.loads(line)
                if "error" in found:
                    raise self._refused(200, str(found["error"]))
                yield found

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        allowed: tuple[int, ...] = (),
    ) -> urllib3.BaseHTTPResponse:
        last = ""
        for number in range(1, TRIES + 1):
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            if number > 1 and hasattr(data, "seek"):
                data.seek(0)
            try:
                reply = self.pool.request(
                    method, self.url + path, body=data, headers={**self.headers, **(headers or {})}
                )
                if reply.status < 300 or reply.status in allowed:
                    return reply
                said = _said(reply)
                if reply.status < 500 or any(word in said.lower() for word in FULL):
                    raise self._refused(reply.status, said)
                last = f"HTTP {reply.status}: {said}"
            except urllib3.exceptions.HTTPError as error:
                last = first_line(error, 200)
                if (advice := _advice(last)) is not None:
                    raise invalid_config(
                        f"{self.field}.url {self.url}: no secure connection: {last}", hint=advice.format(self.field)
                    ) from error
            if number < TRIES:
                time.sleep(PAUSES[number - 1])
        raise source_unavailable(
            f"{self.field}.url {self.url}: Ollama did not answer in {TRIES} tries: {last}",
            hint="check the address, and that the server runs and may be reached from the pod; what is trained is kept",
        )

    def _refused(self, status: int, said: str) -> UserError:
        if any(word in said.lower() for word in FULL):
            return storage(
                f"{self.field}: Ollama's disk is full: {said}", hint="free its volume (ollama rm) or give it more"
            )
        if status in (401, 403):
            return invalid_config(
                f"{self.field}.url {self.url}: access refused (HTTP {status})",
                hint=f"the Secret named in {self.field}.secretRef needs the key token with one that may create models",
            )
        if status == 404:
            return invalid_config(
                f"{self.field}.url {self.url}: not found (HTTP 404): {said}",
                hint="is it an Ollama server, and without a path?",
            )
        return invalid_config(
            f"{self.field}: Ollama refuses: {said}",
            hint="newer servers know more models; check its version, and model's name",
        )


TLS = {
    "WRONG_VERSION_NUMBER": "the server speaks no TLS: write http:// in {}.url",
    "NO_CERTIFICATE_OR_CRL_FOUND": "ca.crt in the Secret of {}.secretRef holds no certificate: it has to be PEM",
    "CERTIFICATE_VERIFY_FAILED": "put the authority that has signed the certificate into ca.crt of the Secret of {}.secretRef, "
    "and name the server as its certificate does",
}
"""What to do about an error of TLS, which no further try mends."""


def _advice(said: str) -> str | None:
    return next((advice for word, advice in TLS.items() if word in said), None)


def _parsed(reply: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    try:
        found = json.loads(reply.data)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _said(reply: urllib3.BaseHTTPResponse) -> str:
    found = _parsed(reply).get("error")
    return (
        first_line(str(found or reply.data[:200].decode(errors="replace")), 300) if found or reply.data else "no word"
    )
