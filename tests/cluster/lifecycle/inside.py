"""The life of a cluster, played through on a machine of its own (see sandbox.sh); ends with an error at the first surprise.

Usage: inside.py CLUSTER_PY STATE
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

KERNEL = ("net/ipv4/ip_forward", "vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")


def driver(*words: str) -> str:
    print("$ tools/cluster", *words, flush=True)
    done = subprocess.run([sys.executable, sys.argv[1], *words], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode != 0:
        raise SystemExit(f"tools/cluster {' '.join(words)} failed")
    return done.stdout


def machine() -> dict[str, list[str]]:
    """Everything outside the state folder that a cluster could leave behind."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return {
        "mounts": Path("/proc/mounts").read_text().splitlines(),
        "links": [line.split()[1] for line in links.splitlines()],
        "firewall": rules.splitlines(),
        "cgroups": sorted(str(p) for p in Path("/sys/fs/cgroup").rglob("*") if p.is_dir()),
        "kernel": [f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in KERNEL],
        "folders": [str(p) for p in map(Path, ("/var/lib/kubelet", "/var/lib/cni", "/run/containerd")) if p.exists()],
    }


def processes_of(state: Path) -> list[str]:
    commands = {p.parent.name: p.read_bytes().decode(errors="replace") for p in Path("/proc").glob("[0-9]*/cmdline")}
    ours = (os.getpid(), os.getppid())
    return [command for pid, command in commands.items() if str(state) in command and int(pid) not in ours]


def expect(truth: bool, text: str) -> None:
    if not truth:
        raise SystemExit(f"expected: {text}")


def expect_unchanged(before: dict[str, list[str]], state: Path) -> None:
    after = machine()
    for what, things in before.items():
        expect(after[what] == things, f"no change in {what}; was {things}, is {after[what]}")
    expect(processes_of(state) == [], f"no process left; there are {processes_of(state)}")


def main() -> None:
    state = Path(sys.argv[2])
    before = machine()
    driver("up")
    expect("nothing to do" in driver("up"), "a healthy cluster is left alone")
    pids: dict[str, int] = json.loads(driver("pids"))
    expect(len(pids) == 14, f"14 processes, not {sorted(pids)}")

    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    driver("up")
    driver("status")

    shutil.rmtree(state / "run")
    (state / "kubeconfig").unlink()
    expect("remains of an earlier cluster" in driver("up"), "lost records are noticed")
    driver("status")
    expect(len(processes_of(state)) >= 14, "the cluster's processes mention its folder")

    driver("down")
    expect_unchanged(before, state)
    expect((state / "bin/kubectl").exists(), "programs are kept")
    driver("up")
    driver("down", "--purge")
    expect_unchanged(before, state)
    expect(not state.exists(), "nothing is kept")


if __name__ == "__main__":
    main()
