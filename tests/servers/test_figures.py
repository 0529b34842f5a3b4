"""Thirty days of metrics and logs from the real servers: time, peak memory, requests. Run by name; minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.measure import record
from tests.servers.postgresql import postgresql
from tests.servers.source_servers import create_blocks, loki, prometheus
from tests.servers.test_loki import push
from tests.servers.test_prometheus import write_metrics
from tests.servers.test_traces_database import SECRET, payload, place
from tests.unit.trainer.data.collect.collecting import MOMENT

pytestmark = [pytest.mark.servers, pytest.mark.load, pytest.mark.timeout(3600)]

DAYS = 30
END = int(MOMENT.timestamp())
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from tests.unit.trainer.data.collect.collecting import context
from trainyard.trainer.data.collect.run import collected
run = context(Path(sys.argv[1]), **json.loads(sys.argv[2]))
started, records, points, size = time.monotonic(), 0, 0, 0
for record in collected(run.datasets[0], run):
    records += 1
    points += len(record.get("values", "x"))
    size += len(json.dumps(record))
print(json.dumps({
    "seconds": round(time.monotonic() - started, 1),
    "cpu": round(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), 1),
    "peakMB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "records": records, "points": points, "MB": round(size / 1e6),
    "journalMB": round(sum(f.stat().st_size for f in Path(sys.argv[1]).rglob("*.gz")) / 1e6),
}))
"""


def measured(place: Path, name: str, dataset: dict[str, Any]) -> dict[str, Any]:
    """Collect in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place), json.dumps(dataset)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(last)
    found["said"] = said[-1]
    record(name, **found)
    assert found["peakMB"] < 500
    return found


def test_thirty_days_of_metrics(tmp_path: Path) -> None:
    series = int(os.environ.get("TRAINYARD_SERIES", "100"))
    started = time.monotonic()
    write_metrics(tmp_path / "metrics.txt", series=series, days=DAYS + 1)
    create_blocks(tmp_path / "metrics.txt", tmp_path / "data")
    (tmp_path / "metrics.txt").unlink()
    print(f"{series} series written in {time.monotonic() - started:.0f} s")
    with prometheus(tmp_path / "data") as server:
        dataset = {"prometheus": {"url": server.url, "queries": ["node_load", "sum(node_load)"]}}
        found = measured(tmp_path, "collect-prometheus", dataset)
    assert found["points"] > DAYS * 1440 * series


def test_thirty_days_of_logs(tmp_path: Path) -> None:
    """Of ten pods, in bursts."""
    a_day = int(os.environ.get("TRAINYARD_LINES_A_DAY", "28800"))
    (tmp_path / "loki").mkdir()
    with loki(tmp_path / "loki") as server:
        lines = push(server.url, days=DAYS, lines_a_day=a_day, pods=10)
        found = measured(tmp_path, "collect-loki", {"loki": {"url": server.url, "queries": ['{app="shop"}']}})
    assert found["records"] == lines


def test_traces_of_a_database(tmp_path: Path) -> None:
    count = int(os.environ.get("TRAINYARD_TRACES", "100000"))
    with postgresql() as server:
        for begin in range(0, count, 5000):
            rows = [
                (str(uuid.UUID(int=n)), "2026-10-01T00:00:00Z", payload(n, note="x" * 1000))
                for n in range(begin, begin + 5000)
            ]
            server.insert(rows)
        place(tmp_path, server.url)
        dataset = {"traces": {"database": {}, "limit": count, "exportFormat": "TRM"}, "secretRef": SECRET}
        found = measured(tmp_path, "collect-traces", dataset)
    assert found["records"] == count
