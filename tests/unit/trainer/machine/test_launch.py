"""Several processes in a pod: one exit code, one record, and signals that reach them all."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from trainyard.trainer.machine import launch as module
from trainyard.trainer.machine.launch import launch, processes_here
from trainyard.trainer.machine.team import Team, ranks, team_of

PROGRAM = """
import json, os, signal, sys
rank = int(os.environ["RANK"])
what = sys.argv[1 + rank]
open(os.environ["TRAINYARD_TERMINATION_LOG"], "w").write(json.dumps({"rank": rank}))
if what == "hang":
    open(os.environ["READY"] + str(rank), "w").close()
    signal.pause()
if what == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    open(os.environ["READY"] + str(rank), "w").close()
    while True:
        signal.pause()
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(what))
"""


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAINYARD_NUM_PROC_PER_NODE", "2")
    monkeypatch.setenv("READY", str(tmp_path / "ready"))
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.3)


def run(tmp_path: Path, *what: str) -> tuple[int, int]:
    """The pod's exit code, and which process its record is of."""
    log = tmp_path / "log"
    code = launch([sys.executable, "-c", PROGRAM, *what], 2, termination_log=log)
    return code, json.loads(log.read_text())["rank"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (("0", "0"), (0, 0)),
        (("0", "64"), (64, 1)),
        (("75", "75"), (75, None)),
        (("79", "hang"), (79, 0)),
        (("hang", "79"), (79, 1)),
        (("killed", "hang"), (137, 0)),
    ],
)
def test_the_pod_ends_as_the_one_that_ended_badly(
    ends: tuple[str, ...], expected: tuple[int, int | None], tmp_path: Path
) -> None:
    code, rank = run(tmp_path, *ends)
    assert code == expected[0]
    assert expected[1] is None or rank == expected[1]


def test_a_signal_reaches_all_of_them(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def send() -> None:
        ready = [tmp_path / "ready0", tmp_path / "ready1"]
        done = threading.Event()
        while not all(r.exists() for r in ready):
            done.wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    assert run(tmp_path, "wait", "wait")[0] == 75
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("node", "local", "rank"), [("0", 0, 0), ("0", 1, 1), ("2", 0, 4), ("2", 1, 5)])
def test_ranks_count_through_the_pods(node: str, local: int, rank: int) -> None:
    environment = {"TRAINYARD_NUM_NODES": "3", "TRAINYARD_NUM_PROC_PER_NODE": "2", "JOB_COMPLETION_INDEX": node}
    assert team_of(ranks(environment, local)) == Team(rank=rank, size=6, local_rank=local, local_size=2)


def test_one_process_is_no_group() -> None:
    assert ranks({}, 0) == {}
    assert team_of({}) == Team()
    assert processes_here({}) == 1
    assert processes_here({"RANK": "1", "TRAINYARD_NUM_PROC_PER_NODE": "2"}) == 0
