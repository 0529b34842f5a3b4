"""Loki's pages, from a server that answers as Loki does: oldest first, at most `limit` lines, lines of one time in any order.

The tests against the real one are in tests/servers.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.collect.collecting import MOMENT, records
from tests.webserver import Asked, Reply, web
from trainyard.trainer.data.collect import loki
from trainyard.trainer.errors import UserError

END = int(MOMENT.timestamp()) * loki.NANO
START = END - 86400 * loki.NANO
Line = tuple[int, str, str]


class Loki:
    """Lines with a pod each; keeps what was asked."""

    def __init__(self, lines: list[Line], *, most: int = 5000) -> None:
        self.lines = sorted(lines)
        self.most = most
        self.sent = 0

    def __call__(self, asked: Asked) -> Reply:
        begin, end, limit = (int(asked.query[k]) for k in ("start", "end", "limit"))
        assert asked.query["direction"] == "forward"
        if limit > self.most:
            return Reply(
                f"max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {self.most})".encode(),
                400,
            )
        within = [line for line in self.lines if begin <= line[0] < end]
        random.Random(begin).shuffle(within)
        page = sorted(within, key=lambda line: line[0])[:limit]
        self.sent += len(page)
        streams: dict[str, list[list[str]]] = defaultdict(list)
        for at, pod, text in page:
            streams[pod].append([str(at), text])
        result = [{"stream": {"app": "a", "pod": pod}, "values": values} for pod, values in streams.items()]
        random.Random(end).shuffle(result)
        return Reply({"status": "success", "data": {"resultType": "streams", "result": result}})


def source(url: str, **fields: Any) -> dict[str, Any]:
    return {"url": url, "queries": ['{app="a"}'], "window": {"days": 1}, "pageSize": 100, **fields}


def as_lines(found: list[dict[str, Any]]) -> list[Line]:
    return [(r["timestamp_ns"], r["labels"]["pod"], r["line"]) for r in found]


@pytest.mark.parametrize("seed", range(5))
def test_no_line_is_lost_and_none_comes_twice(tmp_path: Path, seed: int) -> None:
    """Bursts of many lines at one time lie across the ends of pages and pieces."""
    chance = random.Random(seed)
    moments = [START, END - 1] + [chance.randrange(START, END) for _ in range(60)]
    lines = [
        (at, f"pod-{chance.randrange(4)}", f"line {number}")
        for number, at in enumerate(at for at in moments for _ in range(chance.choice([1, 3, 20, 99])))
    ]
    with web(Loki([*lines, (START - 1, "p", "before"), (END, "p", "after")])) as server:
        found = records(tmp_path, loki=source(server.url, spanMinutes=240))
    assert as_lines(found) == sorted(lines)


def test_more_lines_at_one_time_than_a_page_holds(tmp_path: Path) -> None:
    lines = [(START + 5, "p", f"line {n:04d}") for n in range(750)] + [(START + 6, "p", "after")]
    with web(Loki(lines)) as server:
        assert as_lines(records(tmp_path, loki=source(server.url))) == lines


def test_more_lines_at_one_time_than_the_server_gives(tmp_path: Path) -> None:
    lines = [(START + 5, "p", f"line {n:04d}") for n in range(750)]
    with web(Loki(lines, most=500)) as server, pytest.raises(UserError) as caught:
        records(tmp_path, loki=source(server.url))
    assert "max_entries_limit_per_query (800 > 500)" in caught.value.message


def test_long_lines_make_short_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loki, "PAGE_LIMIT", 20_000)
    lines = [(START + n, "p", f"{n:04d}" + "x" * 1000) for n in range(90)]
    with web(Loki(lines)) as server:
        assert as_lines(records(tmp_path, loki=source(server.url))) == lines


def test_a_query_that_counts(tmp_path: Path) -> None:
    matrix = Reply({"data": {"resultType": "matrix", "result": []}})
    with web(lambda _: matrix) as server, pytest.raises(UserError, match="gives numbers and not lines"):
        records(tmp_path, loki=source(server.url, queries=["count_over_time({a='b'}[1h])"]))


def test_secrets_in_lines_are_left_out(tmp_path: Path) -> None:
    line = (START + 1, "p", 'level=debug msg="connecting" password=hunter2hunter2 host=db')
    with web(Loki([line])) as server:
        (found,) = records(tmp_path, loki=source(server.url))
    assert found["line"] == 'level=debug msg="connecting" password=<redacted:assigned-secret> host=db'


def test_nothing_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with web(Loki([])) as server:
        assert records(tmp_path, loki=source(server.url)) == []
    assert "warning: dataset d: the queries have no lines in this window" in capsys.readouterr().out
