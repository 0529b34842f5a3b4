"""Traces from a small server with Tempo's HTTP API as it is documented.

It differs from Tempo itself: it holds whole traces in memory, knows no TraceQL (every query means all traces), and always
answers with the newest first, where Tempo promises no order.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.collect.collecting import MOMENT, begin_anew, records
from tests.webserver import Asked, Reply, web
from trainyard.trainer.data.collect import tempo
from trainyard.trainer.errors import UserError

END = int(MOMENT.timestamp())


def trace_id(number: int) -> str:
    return f"{number:032x}"


def encoded(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def otlp(number: int, at: int) -> dict[str, Any]:
    """A trace of two services, as /api/traces gives it: ids in base64, attributes with their types."""
    root, child, start = f"{number:08x}00000001", f"{number:08x}00000002", at * 10**9

    def span(own: str, parent: str, name: str, begin: int, end: int, **more: Any) -> dict[str, Any]:
        return {
            "traceId": encoded(trace_id(number)),
            "spanId": encoded(own),
            **({"parentSpanId": encoded(parent)} if parent else {}),
            "name": name,
            "kind": "SPAN_KIND_SERVER",
            "startTimeUnixNano": str(begin),
            "endTimeUnixNano": str(end),
            **more,
        }

    def part(service: str, *spans: dict[str, Any]) -> dict[str, Any]:
        name = {"key": "service.name", "value": {"stringValue": service}}
        return {"resource": {"attributes": [name]}, "scopeSpans": [{"scope": {"name": "x"}, "spans": list(spans)}]}

    attributes = [
        {"key": "http.status_code", "value": {"intValue": "500"}},
        {"key": "retry", "value": {"boolValue": True}},
        {"key": "tags", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"doubleValue": 1.5}]}}},
        {"key": "header", "value": {"stringValue": "Authorization: Bearer abcdef0123456789"}},
    ]
    failed = {"attributes": attributes, "status": {"code": "STATUS_CODE_ERROR", "message": "x"}}
    return {
        "batches": [
            part("database", span(child, root, "select", start + 2_000_000, start + 9_000_000, **failed)),
            part("api", span(root, "", "GET /items", start, start + 12_000_000, status={})),
        ]
    }


class Tempo:
    """Traces by id, each with the second of its start."""

    def __init__(self, starts: dict[str, int]) -> None:
        self.starts = starts
        self.gone: set[str] = set()

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/api/search":
            begin, end, limit = (int(asked.query[k]) for k in ("start", "end", "limit"))
            hits = [(at, i) for i, at in self.starts.items() if begin <= at < end]
            return Reply(
                {
                    "traces": [
                        {"traceID": i.lstrip("0"), "rootServiceName": "api", "startTimeUnixNano": str(at * 10**9)}
                        for at, i in sorted(hits, reverse=True)[:limit]
                    ]
                }
            )
        wanted = asked.path.removeprefix("/api/traces/")
        if wanted not in self.starts or wanted in self.gone:
            return Reply(b"trace not found", 404)
        return Reply(otlp(int(wanted, 16), self.starts[wanted]))


def source(url: str, **fields: Any) -> dict[str, Any]:
    return {"url": url, "window": {"days": 1}, **fields}


def test_a_trace_becomes_a_list_of_spans(tmp_path: Path) -> None:
    with web(Tempo({trace_id(7): END - 100})) as server:
        (found,) = records(tmp_path, tempo=source(server.url))
    start = (END - 100) * 10**9
    assert found == {
        "kind": "trace",
        "trace_id": trace_id(7),
        "spans": [
            {
                "span_id": "0000000700000001",
                "parent_id": None,
                "name": "GET /items",
                "service": "api",
                "start_ns": start,
                "duration_ns": 12_000_000,
                "status": "unset",
                "attributes": {},
            },
            {
                "span_id": "0000000700000002",
                "parent_id": "0000000700000001",
                "name": "select",
                "service": "database",
                "start_ns": start + 2_000_000,
                "duration_ns": 7_000_000,
                "status": "error",
                "attributes": {
                    "http.status_code": 500,
                    "retry": True,
                    "tags": ["a", 1.5],
                    "header": "Authorization: Bearer <redacted:authorization-header>",
                },
            },
        ],
    }


def test_both_versions_of_the_api(tmp_path: Path) -> None:
    old = otlp(7, END)
    new = {"trace": {"resourceSpans": old["batches"]}, "metrics": {}}
    assert tempo.flatten(old) == tempo.flatten(new) != []


def test_a_full_search_is_cut_until_nothing_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempo, "SEARCH_LIMIT", 10)
    starts = {trace_id(n + 1): END - 86400 + (n * n * 7) % 4000 for n in range(300)}
    with web(Tempo(starts)) as server:
        found = records(tmp_path, tempo=source(server.url))
    ids = [r["trace_id"] for r in found]
    assert sorted(ids) == sorted(starts)
    assert [starts[i] for i in ids] == sorted(starts.values())


def test_some_of_many_are_always_the_same(tmp_path: Path) -> None:
    starts = {trace_id(n + 1): END - 1 - n * 60 for n in range(200)}
    with web(Tempo(starts)) as server:
        first = [r["trace_id"] for r in records(tmp_path, tempo=source(server.url, maxTraces=20))]
        begin_anew(tmp_path)
        assert [r["trace_id"] for r in records(tmp_path, tempo=source(server.url, maxTraces=20))] == first
    assert len(first) == 20
    assert max(starts[i] for i in first) - min(starts[i] for i in first) > 6000


def test_a_trace_that_is_gone_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server_state = Tempo({trace_id(n + 1): END - 100 - n for n in range(5)})
    server_state.gone = {trace_id(2)}
    with web(server_state) as server:
        assert len(records(tmp_path, tempo=source(server.url))) == 4
    assert "4 traces, 1 gone or too large in" in capsys.readouterr().out


def test_a_wrong_query(tmp_path: Path) -> None:
    refusal = Reply(b"invalid TraceQL query: parse error at line 1, col 3", 400)
    words = r"refuses the query '\{ x' \(HTTP 400\): invalid TraceQL query"
    with web(lambda _: refusal) as server, pytest.raises(UserError, match=words):
        records(tmp_path, tempo=source(server.url, query="{ x"))
