"""Only our own processes are ended, and exactly those are restarted whose configuration changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster import processes
from cluster.errors import ClusterError
from cluster.processes import Program
from cluster.settings import Paths

SLEEP = Program("sleeper", ("sleep", "300"))
STUBBORN = (
    "import signal, pathlib, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "pathlib.Path(sys.argv[1]).touch(); time.sleep(300)"
)


@pytest.fixture(autouse=True)
def _end_all(paths: Paths) -> Iterator[None]:
    yield
    for name in processes.names(paths):
        processes.stop(paths, name, grace=0.0)


def test_a_started_process_is_found_again_and_not_started_twice(paths: Paths) -> None:
    assert processes.ensure(paths, SLEEP)
    first = processes.running(paths, "sleeper")
    assert first is not None
    assert not processes.ensure(paths, SLEEP)
    assert processes.running(paths, "sleeper") == first


def test_it_has_a_session_of_its_own_so_that_it_outlives_its_shell(paths: Paths) -> None:
    record = processes.start(paths, SLEEP)
    assert os.getsid(record.pid) == record.pid != os.getsid(0)


def test_changed_command_restarts(paths: Paths) -> None:
    first = processes.start(paths, SLEEP)
    assert processes.ensure(paths, replace(SLEEP, command=("sleep", "301")))
    assert processes.start_time(first.pid) != first.started
    second = processes.running(paths, "sleeper")
    assert second is not None
    assert second.pid != first.pid


def test_changed_configuration_file_restarts(paths: Paths, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("a")
    program = replace(SLEEP, inputs=(config,))
    processes.start(paths, program)
    assert not processes.ensure(paths, program)
    config.write_text("b")
    assert processes.ensure(paths, program)


def test_a_place_to_start_in_is_no_reason_to_restart(paths: Paths) -> None:
    processes.start(paths, SLEEP)
    assert not processes.ensure(paths, replace(SLEEP, enter=("env", "--")))


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_a_record_of_another_process_ends_nothing(paths: Paths, change: dict[str, object]) -> None:
    with subprocess.Popen(["sleep", "300"]) as stranger:
        started = processes.start_time(stranger.pid)
        assert started is not None
        record = processes.Record(stranger.pid, started, processes.boot_id(), "f")
        (paths.run / "pids").mkdir()
        (paths.run / "pids" / "old.json").write_text(json.dumps({**asdict(record), **change}))
        assert processes.running(paths, "old") is None
        assert not processes.stop(paths, "old")
        assert stranger.poll() is None
        stranger.kill()


def test_a_broken_record_counts_as_none(paths: Paths) -> None:
    (paths.run / "pids").mkdir()
    (paths.run / "pids" / "half.json").write_text('{"pid": 1')
    assert processes.running(paths, "half") is None
    assert processes.names(paths) == ["half"]


def test_stop_ends_what_ignores_the_polite_signal(paths: Paths, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    record = processes.start(paths, Program("stubborn", (sys.executable, "-c", STUBBORN, str(ready))))
    processes.wait_for("the process", ready.exists, seconds=20)
    assert processes.stop(paths, "stubborn", grace=0.2)
    assert processes.start_time(record.pid) != record.started
    assert processes.names(paths) == []


def test_a_zombie_is_not_alive(paths: Paths) -> None:
    with subprocess.Popen(["true"]) as child:
        processes.wait_for("the end of `true`", lambda: processes.start_time(child.pid) is None, seconds=10)


def test_start_time_is_near_now(paths: Paths) -> None:
    before = time.time()
    record = processes.start(paths, SLEEP)
    assert before - 2 < processes.started_at(record) < time.time() + 2


def test_the_log_of_the_run_before_is_kept(paths: Paths) -> None:
    log = paths.log / "talker.log"
    for number in (1, 2):
        processes.ensure(paths, Program("talker", ("sh", "-c", f"echo run {number}; exec sleep 300")))
        said = f"run {number}\n"
        processes.wait_for("the log", lambda said=said: log.read_text() == said, seconds=10)  # type: ignore[misc]
    assert (paths.log / "talker.log.1").read_text() == "run 1\n"


def test_a_program_that_ends_is_reported_with_its_log(paths: Paths) -> None:
    record = processes.start(paths, Program("brief", ("sleep", "0.1")))
    processes.wait_for("its end", lambda: processes.start_time(record.pid) != record.started, seconds=10)
    assert processes.first_dead(paths, ["brief"]) == f"brief has ended; see {paths.log}/brief.log"


def test_names_with_spaces_and_brackets_do_not_shift_the_fields() -> None:
    assert processes.fields_after_name("12 (a ) b) S 1 2 3")[:2] == ["S", "1"]


def test_waiting_fails_at_once_when_the_awaited_has_died(paths: Paths) -> None:
    begin = time.monotonic()
    with pytest.raises(ClusterError, match=r"gone has ended; see .*gone\.log"):
        processes.wait_for("x", lambda: False, seconds=60, alive=lambda: processes.first_dead(paths, ["gone"]))
    assert time.monotonic() - begin < 5


def test_waiting_gives_up_after_its_time() -> None:
    with pytest.raises(ClusterError, match="the moon is not ready after 0 s"):
        processes.wait_for("the moon", lambda: False, seconds=0.1)


def test_our_addresses_never_go_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.setenv("KUBECONFIG", "/somewhere")
    environment = processes.environment()
    assert environment["NO_PROXY"].startswith("example.com,127.0.0.1,")
    assert environment["no_proxy"] == environment["NO_PROXY"]
    assert "KUBECONFIG" not in environment


WITHOUT_ITS_FIRST_THREAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_still_holds_its_ports() -> None:
    child = subprocess.Popen([sys.executable, "-c", WITHOUT_ITS_FIRST_THREAD], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        until(lambda: stat(child.pid)[0] == "Z")
        assert processes.start_time(child.pid) is not None
    finally:
        child.kill()
    until(lambda: stat(child.pid)[17] == "1")
    assert processes.start_time(child.pid) is None
    child.wait()


def stat(pid: int) -> list[str]:
    return processes.fields_after_name((processes.PROC / str(pid) / "stat").read_text())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
