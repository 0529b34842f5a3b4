"""What can be wrong with a source is told apart, and nothing is asked twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.trainer.data.test_select import context
from tests.webserver import Asked, Reply, Web, web
from trainyard.trainer.data import probe
from trainyard.trainer.data.probe import Reached, ask, probe_all


def answer(asked: Asked) -> Reply:
    status = int(asked.path.rpartition("/")[2].partition(".")[0] or 200) if "/s/" in asked.path else 200
    return Reply(status=status, headers={"Retry-After": "30"} if status == 429 else {})


@pytest.fixture
def server() -> Iterator[Web]:
    with web(answer) as found:
        yield found


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
def test_answers(server: Web, status: int, state: str, detail: str) -> None:
    url = f"{server.url}/s/{status}.jsonl"
    found = ask("d", url, {})
    assert (found.state, found.detail) == (state, detail)
    assert found.fine == (state == "ok")
    assert len(server.asked) == 1


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


def test_a_certificate_of_an_unknown_authority(server: Web) -> None:
    found = ask("d", f"{server.url.replace('http:', 'https:')}/a.jsonl", {})
    assert found.state == "untrusted certificate"


def test_all_sources_of_a_run(server: Web, tmp_path: Path) -> None:
    url = server.url
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
    assert sorted(f"{a.method} {a.target} {a.authorization}".strip() for a in server.asked) == [
        "GET /loki/loki/api/v1/labels Bearer hidden",
        "GET /prom/api/v1/query?query=1",
        "GET /team/app/info/refs?service=git-upload-pack",
        "HEAD /a.jsonl Bearer hidden",
    ]
    assert not any("hidden" in str(one) + str(one.to_json()) for one in found)


def test_each_state_has_a_way_out() -> None:
    for state, way in probe.WAYS_OUT.items():
        assert way in str(Reached("d", "http://x", state))
