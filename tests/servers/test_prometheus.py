"""Metrics from a real Prometheus: Debian's package, with blocks that its own tool wrote and with targets that it scrapes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.servers.restartable import Server, until
from tests.servers.source_servers import create_blocks, prometheus
from tests.unit.trainer.data.collect.collecting import MOMENT, begin_anew, records
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError

pytestmark = pytest.mark.servers

STEP = 60
DAYS = 3
END = int(MOMENT.timestamp())


def value(series: int, at: int) -> float:
    """What a series has at a time: a daily wave, and for one series a gap and numbers that are none."""
    return round(50 + series + 20 * math.sin(at / 86400 * 2 * math.pi), 3)


def is_missing(series: int, at: int) -> bool:
    return series == 1 and END - 7200 <= at < END - 3600


def write_metrics(path: Path, *, series: int, days: int) -> None:
    """A gauge for each of some hosts, a point a minute, in the order that the tool wants: by metric, by time."""
    with open(path, "w") as out:
        out.write("# TYPE node_load gauge\n# HELP node_load Load of a host.\n")
        for number in range(series):
            for at in range(END - days * 86400, END + STEP, STEP):
                if not is_missing(number, at):
                    shown = "NaN" if number == 2 and at == END - 600 else value(number, at)
                    out.write(f'node_load{{host="h{number}"}} {shown} {at}\n')
        out.write("# EOF\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("prometheus")
    write_metrics(place / "metrics.txt", series=4, days=DAYS + 1)
    create_blocks(place / "metrics.txt", place / "data")
    (place / "metrics.txt").unlink()
    with prometheus(place / "data") as running:
        yield running


def source(server: Server, **fields: object) -> dict[str, object]:
    return {"url": server.url, "queries": ["node_load"], "window": {"days": DAYS}, **fields}


def test_every_point_of_the_window_once(tmp_path: Path, server: Server) -> None:
    found = records(tmp_path, prometheus=source(server))
    assert len(found) == 4 * DAYS
    seen: dict[str, dict[int, float]] = {}
    for record in found:
        assert record["kind"] == "series"
        assert record["step"] == STEP
        assert record["metric"]["__name__"] == "node_load"
        points = seen.setdefault(record["metric"]["host"], {})
        for at, number in record["values"]:
            assert at not in points
            points[at] = number
    for number in range(4):
        points = seen[f"h{number}"]
        for at in range(END - DAYS * 86400, END, STEP):
            if number == 2 and at == END - 600:
                assert at not in points
            # After its last point a series is repeated for up to five minutes; then it is a gap.
            elif not is_missing(number, at):
                assert points[at] == value(number, at)
            elif at >= END - 7200 + 300:
                assert at not in points
        assert max(points) == END - STEP
    assert min(seen["h0"]) == END - DAYS * 86400


def test_many_queries_in_their_order_and_aggregates(tmp_path: Path, server: Server) -> None:
    queries = ["sum(node_load)", 'node_load{host="h3"} > 60', "nothing_of_the_sort"]
    found = records(tmp_path, prometheus=source(server, queries=queries, stepSeconds=300, spanHours=12))
    assert [r["query"] for r in found] == [queries[0]] * 6 + [queries[1]] * len(found[6:])
    assert found[0]["metric"] == {}
    assert [len(r["values"]) for r in found[:6]] == [144] * 5 + [143]  # the sum with NaN is left out


def test_a_long_answer_is_asked_for_in_halves(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = records(tmp_path, prometheus=source(server))
    begin_anew(tmp_path)
    monkeypatch.setattr("trainyard.trainer.data.collect.http.Client.post_form.__kwdefaults__", {"limit": 100_000})
    halves = records(tmp_path, prometheus=source(server))
    assert len(halves) > len(whole)

    def points(found: list[dict[str, object]]) -> list[tuple[str, list[float]]]:
        return sorted((r["metric"]["host"], point) for r in found for point in r["values"])  # type: ignore[index,attr-defined]

    assert points(halves) == points(whole)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            "node_load{",
            "the server refuses the query 'node_load{' (HTTP 400): 1:11: parse error: unexpected end of input",
        ),
        ("rate(node_load)", "expected type range vector"),
    ],
)
def test_a_wrong_query_in_the_servers_own_words(tmp_path: Path, server: Server, query: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        records(tmp_path, prometheus=source(server, queries=[query]))
    assert words in caught.value.message
    assert caught.value.message.startswith(f"dataset d: prometheus.url {server.url}/api/v1/query_range: ")
    assert caught.value.exit_code == ExitCode.INVALID_DATA


def test_another_server_at_this_address(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UserError, match=r"loki.url .*: there is nothing \(HTTP 404\)"):
        records(tmp_path, loki={"url": server.url, "queries": ['{a="b"}']})


def test_it_scrapes_and_knows_what_the_metrics_mean(tmp_path: Path) -> None:
    """Its own metrics, over a window that ends now: with type and help."""
    (tmp_path / "data").mkdir()
    with prometheus(tmp_path / "data", scrape_itself=True) as server:
        until(
            lambda: is_true(server, "count_over_time(up[1m]) > 2 and up == 1"),
            seconds=60,
            what=lambda: "nothing scraped",
        )
        now = datetime.fromtimestamp(time.time() + 1, UTC)
        queries = ["up", "prometheus_http_requests_total"]
        window = {"stepSeconds": 1, "spanHours": 1, "window": {"days": 1}}
        found = records(tmp_path, moment=now, prometheus={**source(server), "queries": queries, **window})
    requests = next(r for r in found if r["query"] == queries[1])
    assert requests["metadata"]["type"] == "counter"
    assert requests["metadata"]["help"]
    assert any(r["metric"].get("job") == "own" and r["values"][-1][1] == 1 for r in found)


def is_true(server: Server, query: str) -> bool:
    with urllib.request.urlopen(f"{server.url}/api/v1/query?{urlencode({'query': query})}") as answer:
        return bool(json.load(answer)["data"]["result"])


KILLED = """
import json, os, signal, sys
from pathlib import Path
from collecting import records
from trainyard.trainer.data.collect import journal
place, url, fields, after = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
fetch, done = journal.Journal._fetch, []
def counting(self, piece, path):
    fetch(self, piece, path)
    done.append(path)
    if len(done) == after:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal._fetch = counting
records(place, **fields)
"""


def killed(place: Path, fields: dict[str, object], *, after: int) -> int:
    """Collect in a process of its own that dies as by kill -9 when so many pieces are there."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), "", json.dumps(fields), str(after)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    return done.returncode


def test_after_a_kill_it_goes_on_with_the_same_result(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {"prometheus": source(server, spanHours=3)}
    (tmp_path / "whole").mkdir()
    whole = records(tmp_path / "whole", **fields)
    capsys.readouterr()
    (tmp_path / "broken").mkdir()
    assert killed(tmp_path / "broken", fields, after=9) == -signal.SIGKILL
    assert killed(tmp_path / "broken", fields, after=5) == -signal.SIGKILL
    assert records(tmp_path / "broken", **fields) == whole
    said = capsys.readouterr().out
    reused = int(said.split(" pieces from before")[0].rsplit(" ", 1)[1])
    assert reused >= 14
    requests = int(said.split(" requests")[0].rsplit(" ", 1)[1])
    assert requests == 24 - reused  # the metadata was there too
