"""What the cluster changes on the machine outside its folder: a link, a firewall table, kernel settings, cgroups.

Everything made here has a name of ours, and `restore` takes all of it away. The kernel settings that the kubelet and
the network need are noted before the first change, so that `down` can put the old values back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from cluster import processes
from cluster.errors import ClusterError
from cluster.settings import (
    API_PORT,
    HOST_ADDRESS,
    LINK,
    NFT_TABLE,
    NODES,
    POD_NETWORK,
    SERVICE_NETWORK,
    Node,
    Paths,
)

CGROUPS = Path("/sys/fs/cgroup")
SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/route_localnet": None,
    "vm/overcommit_memory": None,
    "vm/panic_on_oom": None,
    "kernel/panic": None,
    "kernel/panic_on_oops": None,
    "kernel/keys/root_maxkeys": None,
    "kernel/keys/root_maxbytes": None,
}
"""Kernel setting -> the value we need; None where the kubelet or kube-proxy chooses and we only put it back."""

PROXY_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))


def firewall() -> str:
    """Our nftables rules: pods may reach the world, and the world may not reach the API server."""
    return f"""
table ip {NFT_TABLE} {{
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_NETWORK} ip daddr != {{ {POD_NETWORK}, {SERVICE_NETWORK} }} masquerade
  }}
  chain entering {{
    type filter hook input priority filter; policy accept;
    iifname "lo" accept
    ip saddr != {POD_NETWORK} tcp dport {API_PORT} drop
  }}
}}
"""


def run(*command: str, text: str | None = None) -> str:
    """Run a system tool; its output, or ClusterError with what it said."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not installed; `python3 tools/cluster up` installs it") from error
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def succeeds(*command: str) -> bool:
    """Whether the tool is there and exits with 0."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def has_link() -> bool:
    return Path("/sys/class/net", LINK).exists()


def owner() -> Path | None:
    """State folder of the cluster that uses this machine, noted on the link; None if there is none."""
    if not has_link():
        return None
    return Path(Path("/sys/class/net", LINK, "ifalias").read_text().strip() or "/")


def check_owner(paths: Paths) -> None:
    """ClusterError if another cluster uses the machine: addresses, ports and cgroups are there only once."""
    other = owner()
    if other is not None and other != paths.state and not _abandoned(other):
        raise ClusterError(
            f"a cluster with its state in {other} runs on this machine, and there is room for one; "
            f"take it down first: TRAINYARD_CLUSTER_DIR={other} python3 tools/cluster down"
        )


def _abandoned(state: Path) -> bool:
    """Whether a cluster's folder is gone and nothing that was started from it lives: what it left behind is nobody's.

    A folder alone proves nothing, since it may lie in a container that we do not see into; its programs would be seen.
    """
    return not state.exists() and not processes.matching(lambda words: any(str(state) in word for word in words))


def set_up_network(paths: Paths) -> None:
    """The link with the cluster's addresses, the firewall table, forwarding. Idempotent."""
    _note_settings(paths)
    if not has_link():
        if any(succeeds("nft", "list", "table", *table) for table in PROXY_TABLES):
            raise ClusterError(
                "another Kubernetes runs on this machine (there is an nftables table `kube-proxy`); "
                "end it, or use it with CLUSTER=existing"
            )
        run("ip", "link", "add", LINK, "type", "bridge")
    run("ip", "link", "set", LINK, "up", "alias", str(paths.state))
    for address in (HOST_ADDRESS, *(node.address for node in NODES)):
        run("ip", "addr", "replace", f"{address}/32", "dev", LINK)
    if not succeeds("nft", "list", "table", "ip", NFT_TABLE):
        run("nft", "-f", "-", text=firewall())
    for setting, value in SETTINGS.items():
        if value is not None:
            Path("/proc/sys", setting).write_text(value)


def _note_settings(paths: Paths) -> None:
    notes = paths.run / "kernel-settings.json"
    if notes.exists():
        return
    values = {s: Path("/proc/sys", s).read_text().strip() for s in SETTINGS if Path("/proc/sys", s).exists()}
    notes.parent.mkdir(parents=True, exist_ok=True)
    notes.write_text(json.dumps(values, indent=1))


def restore(paths: Paths) -> None:
    """Take link, tables and cgroups away and put the kernel settings back."""
    if has_link():
        run("ip", "link", "delete", LINK)
        for table in (("ip", NFT_TABLE), *PROXY_TABLES):
            if succeeds("nft", "list", "table", *table):
                run("nft", "delete", "table", *table)
    for node in NODES:
        remove_cgroup(node)
    try:
        values = json.loads((paths.run / "kernel-settings.json").read_text())
    except (FileNotFoundError, ValueError):
        return
    for setting, value in values.items():
        Path("/proc/sys", setting).write_text(value)


def hierarchies() -> list[Path]:
    """Mount points of the cgroup hierarchies: one on a machine with cgroup v2, several with v1."""
    return cgroup_mounts(Path("/proc/mounts").read_text())


def cgroup_mounts(mounts: str) -> list[Path]:
    """The writable cgroup file systems in the text of /proc/mounts."""
    lines = (line.split() for line in mounts.splitlines())
    return [Path(f[1]) for f in lines if f[2] in ("cgroup", "cgroup2") and "ro" not in f[3].split(",")]


def make_cgroup(node: Node) -> None:
    """The node's own branch in every hierarchy; the kubelet wants it there before it starts."""
    for root in hierarchies():
        branch = root / node.cgroup
        branch.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (root / file).exists() and (root / "cgroup.clone_children").exists():
                (branch / file).write_text((root / file).read_text())
        controllers = root / "cgroup.controllers"
        if controllers.exists() and controllers.read_text().strip():
            _delegate(root, controllers.read_text().split())


def _delegate(root: Path, controllers: list[str]) -> None:
    """cgroup v2: let the branches use the controllers that the root has."""
    control = root / "cgroup.subtree_control"
    missing = sorted(set(controllers) - set(control.read_text().split()))
    if not missing:
        return
    try:
        control.write_text(" ".join(f"+{name}" for name in missing))
    except OSError as error:
        if root == CGROUPS:
            raise ClusterError(
                f"cannot enable the cgroup controllers {', '.join(missing)} in {control} ({error.strerror}): processes "
                "live in the root cgroup, as inside a container; run on the machine itself, or use CLUSTER=kind"
            ) from error


def processes_in_cgroup(node: Node) -> list[int]:
    """Pids of all containers of the node's pods."""
    found: set[int] = set()
    for root in hierarchies():
        for file in (root / node.cgroup).rglob("cgroup.procs"):
            try:
                found.update(int(pid) for pid in file.read_text().split())
            except OSError:  # the cgroup went away while we looked, or is threaded and cannot be read
                continue
    return sorted(found)


def kill_cgroup(node: Node, *, seconds: float = 15.0) -> None:
    """Kill everything in the node's cgroups: only the node's pods are in there."""
    limit = time.monotonic() + seconds
    while pids := processes_in_cgroup(node):
        if time.monotonic() > limit:
            raise ClusterError(f"processes of {node.name} do not end: {pids}")
        for pid in pids:
            if pid and processes.start_time(pid) is not None:  # 0: in a process namespace that we do not see
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        time.sleep(0.05)


def remove_cgroup(node: Node) -> None:
    """Remove the node's branches, leaves first; a cgroup with processes stays and is an error."""
    for root in hierarchies():
        branch = root / node.cgroup
        if not branch.exists():
            continue
        folders = sorted((p for p in branch.rglob("*") if p.is_dir()), key=lambda p: len(p.parts), reverse=True)
        for folder in (*folders, branch):
            _remove_empty_cgroup(folder)


def _remove_empty_cgroup(folder: Path) -> None:
    """The kernel empties a cgroup some moments after its last process died: try again for a while."""
    limit = time.monotonic() + 5.0
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > limit:
                raise ClusterError(f"cannot remove the cgroup {folder}: {error.strerror}") from error
            time.sleep(0.05)
