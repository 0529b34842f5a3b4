"""A cluster comes up, is killed, is repaired, goes down, and leaves nothing behind; beside the cluster that is in use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

HERE = Path(__file__).parent
BUILT = Path(os.environ.get("TRAINYARD_CLUSTER_DIR", ROOT / ".cluster")) / "bin"
ONE_HIERARCHY = Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.mark.e2e
@pytest.mark.skipif(os.geteuid() != 0, reason="making a machine of its own needs root")
@pytest.mark.skipif(ONE_HIERARCHY, reason="a cgroup v2 branch that holds processes cannot be a machine's root")
def test_life_of_a_cluster(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = tmp_path_factory.mktemp("m")  # short, because sockets lie in it
    shutil.copytree(BUILT, state / "bin", symlinks=True)  # the compiler is not what is tested
    environment = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "CLUSTER")}
    environment |= {"CLUSTER": "local", "TRAINYARD_CLUSTER_DIR": str(state)}
    inside = [sys.executable, str(HERE / "lifecycle" / "inside.py"), str(ROOT / "tools" / "cluster"), str(state)]
    done = subprocess.run(
        [str(HERE / "lifecycle" / "sandbox.sh"), f"machine-{os.getpid()}", *inside],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
