"""A node: containerd and a kubelet in a mount namespace and a cgroup branch of their own.

The mount namespace makes two nodes possible on one machine (some of their folders are at fixed places, such as
/var/lib/kubelet) and keeps their many mounts out of the machine's own view: when the last process of a node has
ended, the kernel takes all its mounts away. A tiny process, the anchor, holds the namespace, so that containerd and
the kubelet can be restarted without the pods noticing.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

from cluster import components, processes, system
from cluster.errors import ClusterError
from cluster.processes import Program
from cluster.settings import Node, Paths

PRIVATE_FOLDERS = (
    Path("/var/lib/kubelet"),
    Path("/var/lib/cni"),
    Path("/var/log/pods"),
    Path("/var/log/containers"),
    Path("/run/containerd"),
)
"""Places with fixed paths; each node sees a folder of its own there."""


def anchor(paths: Paths, node: Node) -> Program:
    """Makes the mount namespace, then turns into the pause program and waits."""
    lines = ["set -e"]
    for place in PRIVATE_FOLDERS:
        lines.append(f"mount --bind '{_own(paths, node, place)}' '{place}'")
    lines.append("mount --make-rshared /")
    lines.append(f"exec '{paths.bin}/pause' {node.name}")
    shell = ("sh", "-c", "\n".join(lines))
    return Program(f"node-{node.name}", ("unshare", "--mount", "--propagation", "private", "--", *shell))


def _own(paths: Paths, node: Node, place: Path) -> Path:
    return paths.node(node) / "machine" / str(place).strip("/").replace("/", "-")


def start_runtime(paths: Paths, node: Node) -> None:
    """The node's cgroups, namespace and containerd. A node whose anchor was lost is started anew as a whole."""
    system.make_cgroup(node)
    holder = anchor(paths, node)
    record = processes.running(paths, holder.name)
    if record is None or record.fingerprint != holder.fingerprint() or lost_folders(paths, node):
        stop(paths, node)
        system.make_cgroup(node)
        for place in PRIVATE_FOLDERS:
            place.mkdir(parents=True, exist_ok=True)
            _own(paths, node, place).mkdir(parents=True, exist_ok=True)
        processes.start(paths, holder)
        processes.wait_for(
            f"the mount namespace of {node.name}",
            lambda: _anchor_is_ready(paths, holder.name),
            seconds=10,
            alive=lambda: processes.first_dead(paths, [holder.name]),
        )
    processes.ensure(paths, inside(paths, node, components.containerd(paths, node)))


def _anchor_is_ready(paths: Paths, name: str) -> bool:
    """The anchor's last act is to become the pause program; then all binds are made."""
    record = processes.running(paths, name)
    if record is None:
        return False
    try:
        return Path(f"/proc/{record.pid}/exe").resolve().name.startswith("pause")
    except OSError:
        return False


def inside(paths: Paths, node: Node, program: Program) -> Program:
    """The program, started in the node's mount namespace."""
    record = processes.running(paths, f"node-{node.name}")
    if record is None:
        raise ClusterError(f"node {node.name} is not up; run `python3 tools/cluster up`")
    enter = ("nsenter", f"--mount=/proc/{record.pid}/ns/mnt", "--")
    return Program(program.name, program.command, program.inputs, enter)


def lost_folders(paths: Paths, node: Node) -> list[Path]:
    """Places at which a running node does not see a folder of its own any more.

    Whoever removes the folder that a mount lies on takes the mount away in every namespace, without a word; then both
    nodes work in the machine's folder and clear each other's pods away.
    """
    record = processes.running(paths, f"node-{node.name}")
    if record is None:
        return []
    try:
        mounts = Path(f"/proc/{record.pid}/mountinfo").read_text()
    except OSError:  # it has just ended
        return []
    return missing_mounts(mounts)


def missing_mounts(mountinfo: str) -> list[Path]:
    """Which of the private folders are no mount points in a /proc/<pid>/mountinfo."""
    points = {line.split()[4] for line in mountinfo.splitlines()}
    return [place for place in PRIVATE_FOLDERS if str(place) not in points]


def runtime_answers(paths: Paths, node: Node) -> bool:
    return system.succeeds("ctr", "--address", str(paths.containerd_socket(node)), "version")


def wait_for_runtime(paths: Paths, node: Node) -> None:
    name = f"containerd-{node.name}"
    processes.wait_for(
        name,
        lambda: runtime_answers(paths, node),
        seconds=30,
        alive=lambda: processes.first_dead(paths, [name]),
    )


def start_kubelet(paths: Paths, node: Node) -> bool:
    """True if it had to be started."""
    return processes.ensure(paths, inside(paths, node, components.kubelet(paths, node)))


def stop_kubelet(paths: Paths, node: Node, *, how: int = signal.SIGTERM) -> bool:
    """True if it ran. Its pods go on, as on a node that lost its network."""
    return processes.stop(paths, f"kubelet-{node.name}", how=how)


def ctr(paths: Paths, node: Node, *words: str) -> str:
    """Run containerd's own client against the node."""
    return system.run("ctr", "--address", str(paths.containerd_socket(node)), "--namespace", "k8s.io", *words)


def stop(paths: Paths, node: Node) -> None:
    """End the node: kubelet, pods, containerd, namespace. Pulled images stay."""
    stop_kubelet(paths, node)
    system.kill_cgroup(node)
    if processes.running(paths, f"containerd-{node.name}") and runtime_answers(paths, node):
        _forget_containers(paths, node)
    processes.stop(paths, f"containerd-{node.name}")
    processes.stop(paths, f"node-{node.name}")
    socket, holder = str(paths.containerd_socket(node)), [str(paths.bin / "pause"), node.name]
    shims_and_anchors = processes.matching(lambda words: _follows(words, "-address", socket) or words == holder)
    for pid, started in shims_and_anchors:
        processes.end(pid, started, grace=0.0)
    system.remove_cgroup(node)
    shutil.rmtree(paths.node(node), ignore_errors=True)


def _follows(words: list[str], flag: str, value: str) -> bool:
    """Whether the command line has the flag with this value."""
    return (flag, value) in pairwise(words)


def _forget_containers(paths: Paths, node: Node) -> None:
    """Remove the dead containers with their file systems, so that the kept store holds images alone."""
    containers = ctr(paths, node, "containers", "list", "--quiet").split()
    for start in range(0, len(containers), 50):
        some = containers[start : start + 50]
        command = ["ctr", "--address", str(paths.containerd_socket(node)), "--namespace", "k8s.io"]
        subprocess.run([*command, "tasks", "delete", "--force", *some], capture_output=True, check=False)
        subprocess.run([*command, "containers", "delete", *some], capture_output=True, check=False)


def remove_mount_points() -> None:
    """Remove the fixed places again where they are empty, thus ours."""
    for place in PRIVATE_FOLDERS:
        try:
            place.rmdir()
        except OSError:  # not there, or somebody else's and in use
            continue
