"""Start, find and end the cluster's own processes, and no others.

Each process leaves a record (pid, start time, boot, fingerprint of what it was started with). A pid alone is not
proof: numbers are used again, so a process counts as ours only while its start time is the recorded one and the
machine has not been started anew. The fingerprint covers the command line and the configuration files, so that
`ensure` restarts exactly the processes whose configuration changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.settings import POD_NETWORK, SERVICE_NETWORK, Paths

PROC = Path("/proc")


@dataclass(frozen=True)
class Record:
    """What identifies a started process."""

    pid: int
    started: int
    """Clock ticks between the machine's boot and the start of the process."""
    boot: str
    fingerprint: str


@dataclass(frozen=True)
class Program:
    """A process that should run."""

    name: str
    command: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    """Files whose change makes a restart necessary."""
    enter: tuple[str, ...] = ()
    """Words before the command that place it (a namespace); not part of the fingerprint."""

    def fingerprint(self) -> str:
        digest = hashlib.sha256("\0".join(self.command).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


def boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None if there is none or it is a zombie.

    A zombie with further threads is none yet: until the last of them has ended its files and ports are open.
    """
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = fields_after_name(stat)
    gone = fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1)
    return None if gone else int(fields[19])


def started_at(record: Record) -> float:
    """When the process started, in seconds since the epoch."""
    booted = next(line for line in (PROC / "stat").read_text().splitlines() if line.startswith("btime "))
    return int(booted.split()[1]) + record.started / os.sysconf("SC_CLK_TCK")


def fields_after_name(stat: str) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before it may hold spaces and brackets."""
    return stat[stat.rindex(")") + 2 :].split()


def _record_path(paths: Paths, name: str) -> Path:
    return paths.run / "pids" / f"{name}.json"


def recorded(paths: Paths, name: str) -> Record | None:
    try:
        return Record(**json.loads(_record_path(paths, name).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def running(paths: Paths, name: str) -> Record | None:
    """The record of the named process if that very process still runs."""
    record = recorded(paths, name)
    if record is None or record.boot != boot_id() or start_time(record.pid) != record.started:
        return None
    return record


def first_dead(paths: Paths, wanted: Sequence[str]) -> str | None:
    """Says which of the processes does not run, with the place of its log; None if all run."""
    for name in wanted:
        if running(paths, name) is None:
            return f"{name} has ended; see {paths.log}/{name}.log"
    return None


def names(paths: Paths) -> list[str]:
    """Names of all processes ever recorded and not yet forgotten."""
    return sorted(path.stem for path in (paths.run / "pids").glob("*.json"))


def environment() -> dict[str, str]:
    """The caller's environment, with the cluster's own addresses kept away from any HTTP proxy."""
    own = f"127.0.0.1,localhost,{POD_NETWORK},{SERVICE_NETWORK},.svc,.cluster.local"
    result = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "NO_PROXY", "no_proxy")}
    before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    result["NO_PROXY"] = result["no_proxy"] = f"{before},{own}".strip(",")
    return result


def start(paths: Paths, program: Program) -> Record:
    """Start a process that outlives the caller: own session, log file for output, nothing on stdin."""
    log = paths.log / f"{program.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*program.enter, *program.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=paths.run,
            env=environment(),
        )
    started = start_time(child.pid)
    if started is None:
        raise ClusterError(f"{program.name} ended at once; see {log}")
    record = Record(child.pid, started, boot_id(), program.fingerprint())
    target = _record_path(paths, program.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(asdict(record)))
    return record


def ensure(paths: Paths, program: Program) -> bool:
    """Make the program run with its present configuration; True if it had to be started."""
    record = running(paths, program.name)
    if record is not None and record.fingerprint == program.fingerprint():
        return False
    if record is not None:
        stop(paths, program.name)
    start(paths, program)
    return True


def stop(paths: Paths, name: str, *, grace: float = 10.0, how: int = signal.SIGTERM) -> bool:
    """End the named process and forget it: a signal, `grace` seconds, then SIGKILL. True if it ran."""
    record = running(paths, name)
    if record is not None:
        end(record.pid, record.started, grace=grace, how=how)
    _record_path(paths, name).unlink(missing_ok=True)
    return record is not None


def end(pid: int, started: int, *, grace: float, how: int = signal.SIGTERM) -> None:
    """End one process, known by pid and start time, and wait until it is gone."""
    for number, patience in ((how, grace), (signal.SIGKILL, 10.0)):
        if start_time(pid) != started:
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        limit = time.monotonic() + patience
        while time.monotonic() < limit:
            _reap(pid)
            if start_time(pid) != started:
                return
            time.sleep(0.02)
    raise ClusterError(f"process {pid} does not end, even by SIGKILL; look at /proc/{pid}/stack")


def _reap(pid: int) -> None:
    """Take the exit status if the process is our own child; a no-op for any other."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def memory_mib(pid: int) -> float:
    """Proportional share of memory (PSS) in MiB; 0 for a process that is gone."""
    try:
        summary = (PROC / str(pid) / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    for line in summary.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def matching(wanted: Callable[[list[str]], bool]) -> list[tuple[int, int]]:
    """(pid, start time) of the processes whose command line, as a list of words, is wanted."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        started = start_time(int(entry.name))
        if started is not None and wanted(words):
            found.append((int(entry.name), started))
    return found


def wait_for(
    what: str, ready: Callable[[], bool], *, seconds: float, alive: Callable[[], str | None] = lambda: None
) -> None:
    """Poll until `ready`; ClusterError after `seconds`, or as soon as `alive` names what died."""
    limit = time.monotonic() + seconds
    while not ready():
        dead = alive()
        if dead:
            raise ClusterError(f"waiting for {what}: {dead}")
        if time.monotonic() > limit:
            raise ClusterError(f"{what} is not ready after {seconds:.0f} s")
        time.sleep(0.1)
