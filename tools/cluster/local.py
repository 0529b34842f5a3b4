"""The local cluster: up and down.

`up` goes through the parts in order and starts only what does not match its wanted state, so it serves as the first
start, as the repair of a half-dead cluster, and as the check of a healthy one.
"""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import api, build, builder, components, health, nodes, packages, pki, processes, system
from cluster.errors import ClusterError
from cluster.lock import only_one
from cluster.settings import NODES, PAUSE_IMAGE, SOURCES, Node, Paths
from cluster.timing import Timings, say

DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
LONGEST_SOCKET = 104
"""Characters of a socket's path that containerd allows."""


def up(paths: Paths) -> None:
    """Bring the cluster up, or repair it. Returns when pods can be scheduled on both nodes."""
    if os.geteuid() != 0:
        raise ClusterError("the local cluster needs root (mounts, namespaces, cgroups); run as root, or CLUSTER=kind")
    system.check_owner(paths)
    check_length(paths)
    with only_one(paths):
        timings = Timings("up")
        if not health.problems(paths):
            say(f"the cluster is up, nothing to do ({timings.total:.1f} s); KUBECONFIG={paths.kubeconfig}")
            return
        say("bringing the local cluster up")
        _prepare(paths, timings)
        _start(paths, timings)
        timings.save(paths.timings)
        say(f"the cluster is up after {timings.total:.1f} s; KUBECONFIG={paths.kubeconfig}")


def _prepare(paths: Paths, timings: Timings) -> None:
    missing = packages.needed()
    if missing:
        with timings.part("operating system packages"):
            packages.install(missing)
    with timings.part("programs"):
        build.build_programs(paths)
    if _has_remains(paths):
        with timings.part("remains of an earlier cluster"):
            _stop_all(paths)
    _check_ports(paths)
    with timings.part("certificates, network"):
        pki.make(paths)
        _write_configuration(paths)
        system.set_up_network(paths)


def _start(paths: Paths, timings: Timings) -> None:
    with timings.part("etcd, registry, container runtimes"):
        processes.ensure(paths, components.registry(paths))
        processes.ensure(paths, components.etcd(paths))
        health.wait_for_endpoint(paths, "etcd", seconds=30)
        processes.ensure(paths, components.api_server(paths))
        for node in NODES:
            nodes.start_runtime(paths, node)
        health.wait_for_endpoint(paths, "registry", seconds=30)
        if builder.registry_digest(PAUSE_IMAGE) is None:
            builder.push_pause(paths)
        for node in NODES:
            nodes.wait_for_runtime(paths, node)
    with timings.part("API server"):
        client = health.wait_for_api(paths)
    with timings.part("controllers, scheduler, nodes, DNS"):
        kubectl = [str(paths.bin / "kubectl"), "--kubeconfig", str(paths.kubeconfig)]
        for program in (components.controllers(paths), components.scheduler(paths), components.proxy(paths)):
            processes.ensure(paths, program)
        for node in NODES:
            nodes.start_kubelet(paths, node)
        system.run(*kubectl, "apply", "--server-side", "-f", str(SOURCES / "manifests"))
        for program in (components.dns(paths), components.provisioner(paths)):
            processes.ensure(paths, program)
        for name in health.ENDPOINTS:
            health.wait_for_endpoint(paths, name, seconds=90)
        for node in NODES:
            health.wait_for_node(paths, node)
        processes.wait_for("the default service account", lambda: client.exists(DEFAULT_ACCOUNT), seconds=60)


def _has_remains(paths: Paths) -> bool:
    """Whether records are from before the machine's last start, or were deleted while the cluster ran."""
    records = [processes.recorded(paths, name) for name in processes.names(paths)]
    if any(record is not None and record.boot != processes.boot_id() for record in records):
        return True
    return not records and system.has_link()


def _write_configuration(paths: Paths) -> None:
    folder = packages.cni_folder()
    if folder is None:
        raise ClusterError("no network plugins (ptp) found; install containernetworking-plugins")
    paths.volumes.mkdir(parents=True, exist_ok=True)
    for path, text in components.configuration(paths, cni_folder=folder).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def check_length(paths: Paths) -> None:
    """Raises ClusterError for a state folder so deep down that containerd's sockets in it have no valid name."""
    longest = max((f"{paths.containerd_socket(node)}.ttrpc" for node in NODES), key=len)
    if len(longest) > LONGEST_SOCKET:
        raise ClusterError(
            f"the path of a socket would have {len(longest)} characters, and {LONGEST_SOCKET} are allowed: {longest}; "
            "set TRAINYARD_CLUSTER_DIR to a folder with a shorter path"
        )


def _check_ports(paths: Paths) -> None:
    """Refuse early and by name when another program holds an address we need."""
    for name in ("etcd", "registry"):
        url = health.ENDPOINTS[name]
        if processes.running(paths, name) is None and api.answers(url):
            raise ClusterError(f"another program answers at {url}, where the cluster's {name} belongs; end it first")


def down(paths: Paths, *, purge: bool) -> None:
    """End the cluster and undo what it changed on the machine; `purge` also removes programs and images."""
    system.check_owner(paths)
    with only_one(paths), only_one(paths, "images"):
        timings = Timings("down")
        with timings.part("processes, mounts, network"):
            _stop_all(paths)
        if purge:
            with timings.part("all state"):
                builder.remove_all(paths)
                _unmount_below(paths.state)
                shutil.rmtree(paths.state)
        else:
            timings.save(paths.timings)
    kept = "nothing is kept" if purge else f"programs and images are kept in {paths.state}"
    say(f"the cluster is down after {timings.total:.1f} s; {kept}")


def _stop_all(paths: Paths) -> None:
    """End everything. The cluster's data goes too, so nothing is asked to end in order but the image stores."""
    with ThreadPoolExecutor(len(NODES)) as pool:
        list(pool.map(lambda node: _stop_node(paths, node), NODES))
    processes.stop(paths, "registry")
    for name in processes.names(paths):
        processes.stop(paths, name, how=signal.SIGKILL)
    commands = [list(program.command) for program in health.programs(paths)]
    for pid, started in processes.matching(lambda words: words in commands):  # started by us, record lost
        processes.end(pid, started, grace=0.0)
    _unmount_below(paths.state)
    system.restore(paths)
    nodes.remove_mount_points()
    shutil.rmtree(paths.run, ignore_errors=True)
    paths.kubeconfig.unlink(missing_ok=True)


def _stop_node(paths: Paths, node: Node) -> None:
    nodes.stop_kubelet(paths, node, how=signal.SIGKILL)
    nodes.stop(paths, node)


def _unmount_below(folder: Path) -> None:
    """The nodes' mounts ended with their namespaces; these are an interrupted image build's, or somebody else's."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounted):
        if Path(mount).is_relative_to(folder):
            system.run("umount", mount)
