"""What can be wrong with a source is told apart, and nothing is asked twice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_select import context

from trainyard.trainer.data import probe
from trainyard.trainer.data.probe import Reached, ask, probe_all


class Handler(BaseHTTPRequestHandler):
    seen: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.seen.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}".strip())
        status = (
            int(self.path.rpartition("/")[2].partition(".")[0].partition("?")[0] or 200) if "/s/" in self.path else 200
        )
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "30")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *given: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.seen = []
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize(
    ("status", "state", "detail"),
    [
        (200, "ok", ""),
        (401, "access refused", "HTTP 401"),
        (403, "access refused", "HTTP 403"),
        (404, "not found", "HTTP 404"),
        (405, "ok", ""),
        (429, "too many requests", "HTTP 429, again in 30 s"),
        (500, "server error", "HTTP 500"),
        (503, "server error", "HTTP 503"),
    ],
)
def test_answers(server: ThreadingHTTPServer, status: int, state: str, detail: str) -> None:
    url = f"http://127.0.0.1:{server.server_port}/s/{status}.jsonl"
    found = ask("d", url, {})
    assert (found.state, found.detail) == (state, detail)
    assert found.fine == (state == "ok")
    assert len(Handler.seen) == 1


def test_an_unknown_host() -> None:
    assert ask("d", "http://no-such-host.invalid/a.jsonl", {}).state == "unknown host"


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    found = ask("d", f"http://127.0.0.1:{port}/a.jsonl", {})
    assert (found.state, found.detail) == ("refused", "Connection refused")


def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = ask("d", f"http://127.0.0.1:{silent.getsockname()[1]}/a.jsonl", {})
    assert (found.state, found.detail) == ("timeout", "no answer within 0.2 s")


def test_a_certificate_of_an_unknown_authority(server: ThreadingHTTPServer) -> None:
    found = ask("d", f"https://127.0.0.1:{server.server_port}/a.jsonl", {})
    assert found.state == "untrusted certificate"


def test_all_sources_of_a_run(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "secrets" / "web").mkdir(parents=True)
    (tmp_path / "secrets" / "web" / "token").write_text("hidden")
    (tmp_path / "volumes" / "c").mkdir(parents=True)
    (tmp_path / "volumes" / "c" / "a.jsonl").write_text("{}\n")
    run = context(
        tmp_path,
        {"inline": {"text": "a"}},
        {"storageUri": "pvc://c/a.jsonl"},
        {"storageUri": "pvc://c/b.jsonl"},
        {"storageUri": f"{url}/a.jsonl", "secretRef": {"name": "web"}},
        {"prometheus": {"url": f"{url}/prom", "queries": ["up"]}},
        {"loki": {"url": f"{url}/loki", "queries": ['{a="b"}']}, "secretRef": {"name": "web"}},
        {"code": {"url": f"{url}/team/app"}},
    )
    found = probe_all(run)
    assert [one.state for one in found] == ["local", "local", "not found", "ok", "ok", "ok", "ok"]
    assert sorted(Handler.seen) == [
        "GET /loki/loki/api/v1/labels Bearer hidden",
        "GET /prom/api/v1/query?query=1",
        "GET /team/app/info/refs?service=git-upload-pack",
        "HEAD /a.jsonl Bearer hidden",
    ]
    assert not any("hidden" in str(one) + str(one.to_json()) for one in found)


def test_each_state_has_a_way_out() -> None:
    for state, way in probe.WAYS_OUT.items():
        assert way in str(Reached("d", "http://x", state))
