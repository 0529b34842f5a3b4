"""The live page of the installed operator, reached as people reach it: through a port that `trainyard page` forwards."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.e2e import measure, runs
from tests.e2e.command_line import CommandLine
from tests.e2e.kube import Kube
from tests.ports import free_port

LATE_SECONDS = 2.0
STEPS = 600

pytestmark = pytest.mark.timeout(600)


@contextmanager
def page(folder: Path, namespace: str) -> Iterator[str]:
    port = free_port()
    process = CommandLine(folder, namespace).start("page", "--port", str(port))
    origin = f"http://localhost:{port}"
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(origin)
        deadline = time.monotonic() + 30
        while not answers(origin):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield origin
    finally:
        process.terminate()
        process.wait(20)


def answers(origin: str) -> bool:
    try:
        with urllib.request.urlopen(f"{origin}/", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def events(url: str) -> Iterator[tuple[float, str, Any]]:
    """Moment, kind and data of each server-sent event."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        kind = ""
        for line in answer:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield time.time(), kind, json.loads(value)


def test_a_step_is_on_the_page_within_two_seconds(kube: Kube, space: str, tmp_path: Path) -> None:
    runs.apply(kube, space, runs.tiny("seen", training={"maxSteps": STEPS, "loggingSteps": 5}))
    runs.until(kube, space, "seen", lambda r: runs.state(r) == "Training", seconds=200, what="the training")
    late, steps = [], []
    with page(tmp_path, space) as origin:
        board = read(f"{origin}/api/board")
        assert "seen" in {row["name"] for row in board["runs"] if row["namespace"] == space}
        for at, kind, data in events(f"{origin}/api/events?run={space}/seen"):
            if kind == "point":
                late.append(at - data["time"])
                steps.append(data["step"])
            if kind == "lines" and any(
                row["name"] == "seen" and row["state"] not in ("Training", "Preparing") for row in data["runs"]
            ):
                break
        runs.until_succeeded(kube, space, "seen", seconds=200)
        curves = read(f"{origin}/api/runs/{space}/seen/curves")
        detail = read(f"{origin}/api/runs/{space}/seen")
        index = urllib.request.urlopen(f"{origin}/", timeout=20)
        policy = index.headers["Content-Security-Policy"]
    assert len(late) >= 5, steps
    measure.record("page", points=len(late), median_late=round(median(late), 2), longest_late=round(max(late), 2))
    assert max(late) < LATE_SECONDS, sorted(late)[-5:]
    assert steps == sorted(steps)
    assert curves["points"][-1]["step"] == STEPS, "also when its pod is gone"
    assert detail["state"] == "Succeeded"
    assert re.search(r"connect-src 'self'", policy)
