"""Log lines from a real Loki, built from its Go module, pushed through its own API."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.servers.restartable import Server, until
from tests.servers.source_servers import loki
from tests.servers.test_prometheus import killed
from tests.unit.trainer.data.collect.collecting import MOMENT, begin_anew, records, secret
from trainyard.trainer.errors import UserError

pytestmark = [pytest.mark.servers, pytest.mark.timeout(2400)]

END = int(MOMENT.timestamp())
NANO = 10**9
BATCH = 5000
Line = tuple[int, str, str]


def made(*, days: int, lines_a_day: int, pods: int) -> Iterator[Line]:
    """Lines in the order of time; every tenth second has a burst of lines at one nanosecond, over several pods."""
    step = 86_400 // (lines_a_day // 10)
    for second in range(END - days * 86_400, END, step):
        for n in range(10):
            at = second * NANO + (0 if second % 100 == 0 else n * 1000)
            level = "error" if second % 3600 < 40 else "info"
            yield (
                at,
                f"pod-{(second + n) % pods}",
                f'level={level} msg="request {second * 10 + n}" status=200 path=/api/v1/items/{n}',
            )


def push(url: str, *, days: int, lines_a_day: int, pods: int, tenant: str = "") -> int:
    """Write them through /loki/api/v1/push; returns how many."""
    batch: list[Line] = []
    count = 0
    for line in made(days=days, lines_a_day=lines_a_day, pods=pods):
        batch.append(line)
        count += 1
        if len(batch) == BATCH:
            send(url, batch, tenant)
            batch = []
    if batch:
        send(url, batch, tenant)
    ask(f"{url}/flush", b"", tenant)  # Loki answers about the past from what is on disk
    until(
        lambda: held(url, days, tenant) == count,
        seconds=300,
        what=lambda: f"{held(url, days, tenant)} of {count} lines",
    )
    return count


def held(url: str, days: int, tenant: str) -> int:
    """How many lines the server gives out."""
    query = urlencode({"query": f'sum(count_over_time({{app="shop"}}[{days}d]))', "time": END * NANO - 1})
    result = json.loads(ask(f"{url}/loki/api/v1/query?{query}", None, tenant))["data"]["result"]
    return int(result[0]["value"][1]) if result else 0


def ask(url: str, body: bytes | None, tenant: str) -> bytes:
    headers = {"Content-Type": "application/json"} | ({"X-Scope-OrgID": tenant} if tenant else {})
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=600) as answer:
        content: bytes = answer.read()
    return content


def send(url: str, lines: list[Line], tenant: str) -> None:
    streams: dict[str, list[list[str]]] = {}
    for at, pod, text in lines:
        streams.setdefault(pod, []).append([str(at), text])
    body = {"streams": [{"stream": {"app": "shop", "pod": pod}, "values": values} for pod, values in streams.items()]}
    ask(f"{url}/loki/api/v1/push", json.dumps(body).encode(), tenant)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with loki(tmp_path_factory.mktemp("loki")) as running:
        assert push(running.url, days=2, lines_a_day=8640, pods=3) == 17280
        yield running


def source(server: Server, **fields: Any) -> dict[str, Any]:
    return {"url": server.url, "queries": ['{app="shop"}'], "window": {"days": 2}, "pageSize": 100, **fields}


def test_every_line_once_in_order(tmp_path: Path, server: Server) -> None:
    found = records(tmp_path, loki=source(server))
    lines = [(r["timestamp_ns"], r["labels"]["pod"], r["line"]) for r in found]
    assert lines == sorted(made(days=2, lines_a_day=8640, pods=3))


def test_pages_of_any_size_give_the_same(tmp_path: Path, server: Server) -> None:
    small = records(tmp_path, loki=source(server, spanMinutes=600))
    begin_anew(tmp_path)
    large = records(tmp_path, loki=source(server, pageSize=5000))
    assert len(small) == 17280
    assert small == large


def test_filters_are_the_servers(tmp_path: Path, server: Server) -> None:
    found = records(
        tmp_path,
        loki=source(server, queries=['{app="shop"} |= "level=error"', '{pod="pod-1"} | logfmt | status="404"']),
    )
    assert found
    assert all("level=error" in r["line"] for r in found)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("{app=", "(HTTP 400): parse error"),
        ('rate({app="shop"}[1m])', "gives numbers and not lines"),
    ],
)
def test_a_wrong_query(tmp_path: Path, server: Server, query: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        records(tmp_path, loki=source(server, queries=[query]))
    assert words in caught.value.message


def test_a_page_larger_than_the_server_allows(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UserError, match="max_entries_limit"):
        records(tmp_path, loki=source(server, pageSize=50_000))


def test_tenants_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "loki").mkdir()
    with loki(tmp_path / "loki", auth=True) as server:
        push(server.url, days=1, lines_a_day=8640, pods=1, tenant="a")
        fields = {"loki": source(server, window={"days": 1})}
        with pytest.raises(UserError, match=r"HTTP 401\): no org id"):
            records(tmp_path, **fields)
        assert len(records(tmp_path, **fields, secretRef=secret(tmp_path, tenant="a"))) == 8640
        begin_anew(tmp_path)
        assert records(tmp_path, **fields, secretRef=secret(tmp_path, tenant="b")) == []


def test_after_a_kill_it_goes_on_with_the_same_result(tmp_path: Path, server: Server) -> None:
    fields = {"loki": source(server)}
    (tmp_path / "whole").mkdir()
    whole = records(tmp_path / "whole", **fields)
    (tmp_path / "broken").mkdir()
    assert killed(tmp_path / "broken", fields, after=11) == -signal.SIGKILL
    kept = len(list((tmp_path / "broken").rglob("*.jsonl.gz")))
    assert 11 <= kept < 48
    assert records(tmp_path / "broken", **fields) == whole != []
