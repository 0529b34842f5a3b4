"""Faults of the local cluster's own parts, by its driver."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests import ROOT

DRIVER = ROOT / "tools" / "cluster"


def driver(*words: str) -> None:
    """One command of the cluster's driver."""
    done = subprocess.run([sys.executable, str(DRIVER), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"tools/cluster {' '.join(words)}: {done.stderr or done.stdout}"


@contextmanager
def node_lost(name: str) -> Iterator[None]:
    """Inside, the node's kubelet does not run; it is started again whatever happens."""
    driver("node", "stop", name)
    try:
        yield
    finally:
        driver("node", "start", name)
