"""What the tests of the collectors share: a place with a pod's folders, and a run of one dataset."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from trainyard.api import API_VERSION
from trainyard.api.manifest import parse_run
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect import Record
from trainyard.trainer.data.collect.run import collected

MOMENT = datetime(2026, 11, 1, 2, tzinfo=UTC)
"""The time at which runs of these tests look back."""


def context(place: Path, *, moment: datetime | None = MOMENT, **dataset: Any) -> RunContext:
    """A prepare step of a run with one dataset called d."""
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": "r"},
        "spec": {
            "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
            "datasets": [{"name": "d", **dataset}],
            "training": {"method": "Pretrain", "maxSteps": 1},
        },
    }
    for name in ("volumes", "secrets", "work"):
        (place / name).mkdir(exist_ok=True)
    return RunContext(
        run=parse_run(manifest),
        step="prepare",
        attempt=1,
        uid="u",
        work_dir=place / "work",
        cache_dir=place / "cache",
        volumes_dir=place / "volumes",
        secrets_dir=place / "secrets",
        progress_url=None,
        token_file=place / "token",
        moment=moment,
    )


def records(place: Path, *, moment: datetime | None = MOMENT, **dataset: Any) -> list[Record]:
    """All raw records of the dataset."""
    run = context(place, moment=moment, **dataset)
    return list(collected(run.datasets[0], run))


def begin_anew(place: Path) -> None:
    """Forget what was fetched."""
    work = place / "work"
    if work.exists():
        work.rename(place / f"work-{len(list(place.iterdir()))}")


def secret(place: Path, **values: str) -> dict[str, str]:
    """A mounted Secret called login."""
    folder = place / "secrets" / "login"
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in values.items():
        (folder / key.replace("ca_crt", "ca.crt")).write_text(value + "\n")
    return {"name": "login"}


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Reply:
    """An answer; a body that is no bytes becomes JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Web:
    """A server whose answers are made by a function."""

    url: str
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def web(answer: Callable[[Asked], Reply], *, tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Serve on a loopback address."""
    state = Web("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.serve()

        def do_POST(self) -> None:
            self.serve()

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            form = body.decode() if self.headers.get("Content-Type", "").endswith("urlencoded") else ""
            asked = Asked(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query) + parse_qsl(form)),
                dict(self.headers.items()),
                body,
            )
            state.asked.append(asked)
            reply = answer(asked)
            content = reply.encoded()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def times(reply: Callable[[Asked], Reply], first: list[Reply]) -> Callable[[Asked], Reply]:
    """Answers the first requests as listed, then as usual."""
    waiting = [replace(r) for r in first]
    return lambda asked: waiting.pop(0) if waiting else reply(asked)
