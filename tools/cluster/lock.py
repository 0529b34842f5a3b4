"""One changing command at a time: two would start parts twice."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.settings import Paths
from cluster.timing import say


@contextmanager
def only_one(paths: Paths, what: str = "cluster") -> Iterator[None]:
    """Hold the lock named `what` (cluster or images); waits, and says for whom."""
    paths.state.mkdir(parents=True, exist_ok=True)
    with (paths.state / f"{what}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"waiting for another run of tools/cluster (pid {lock.read().strip()}) to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
