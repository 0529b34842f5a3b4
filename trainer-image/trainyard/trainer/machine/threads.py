"""How many threads compute: as many as the container has CPUs, not as many as the machine has.

A container with a quota of two CPUs on a machine with sixty-four sees sixty-four, and sixty-four threads share two
CPUs' worth of time by being stopped for most of every 100 ms period: many times slower than two threads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
SPIN_VARIABLE = "GOMP_SPINCOUNT"
SPINS = 1000
"""How often a thread that waits for the others looks again before it sleeps: some microseconds. OpenMP's own default is
milliseconds, in which it keeps the CPU from the very thread it waits for whenever something else runs on the node. Measured
with two training processes' worth of load per CPU: 16 steps per second against 2."""


def available(*, cgroup: Path = CGROUP, membership: Path = Path("/proc/self/cgroup")) -> int:
    """CPUs this process may use: the smaller of its affinity and its cgroup's quota, rounded down, at least one."""
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    limits = [quota for quota in (_quota(folder) for folder in _folders(cgroup, membership)) if quota is not None]
    return max(1, min([cpus, *(int(limit) for limit in limits)]))


def apply(count: int) -> None:
    """Tell the libraries, before they are loaded; what the user has set stays."""
    for variable in VARIABLES:
        os.environ.setdefault(variable, str(count))
    os.environ.setdefault(SPIN_VARIABLE, str(SPINS))


def _folders(cgroup: Path, membership: Path) -> list[Path]:
    """Where the quota may stand, in version 1 and 2, from this process's own group up to the root."""
    found = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            bases = [cgroup] if controllers == "" else [cgroup / "cpu", cgroup / controllers]
            parts = Path(path.lstrip("/"))
            found += [base / folder for base in bases for folder in [parts, *parts.parents]]
    return [*found, cgroup, cgroup / "cpu", cgroup / "cpu,cpuacct"]


def _quota(folder: Path) -> float | None:
    """CPUs that one cgroup folder allows; None without a limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        period_us = int((folder / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None
