"""The local cluster as a whole: up, down, status, and the small acts that fault tests need.

`up` describes the wanted state part by part and starts only what does not match it, so it serves as the first start,
as the repair of a half-dead cluster, and as the check of a healthy one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driver import api, build, builder, components, nodes, packages, pki, processes, system
from driver.errors import ClusterError
from driver.processes import Program
from driver.settings import (
    CONTROLLER_PORT,
    DNS_READY_PORT,
    ETCD_PORT,
    GPU_RESOURCE,
    HOST_ADDRESS,
    NODES,
    PAUSE_IMAGE,
    PROXY_HEALTH_PORT,
    REGISTRY_PORT,
    SCHEDULER_PORT,
    SOURCES,
    Node,
    Paths,
)
from driver.timing import Timings, say

HEALTH = {
    "etcd": f"http://127.0.0.1:{ETCD_PORT}/health",
    "registry": f"http://127.0.0.1:{REGISTRY_PORT}/v2/",
    "kube-controller-manager": f"https://127.0.0.1:{CONTROLLER_PORT}/healthz",
    "kube-scheduler": f"https://127.0.0.1:{SCHEDULER_PORT}/healthz",
    "kube-proxy": f"http://127.0.0.1:{PROXY_HEALTH_PORT}/healthz",
    "coredns": f"http://{HOST_ADDRESS}:{DNS_READY_PORT}/ready",
    **{f"kubelet-{n.name}": f"http://127.0.0.1:{n.health_port}/healthz" for n in NODES},
}
"""Where a process says that it works; the API server and containerd are asked in other ways."""


@contextmanager
def only_one(paths: Paths) -> Iterator[None]:
    """Hold the cluster's lock: two commands that change it would start parts twice."""
    paths.state.mkdir(parents=True, exist_ok=True)
    with (paths.state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"waiting for another cluster.py (pid {lock.read().strip()}) to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def up(paths: Paths) -> None:
    """Bring the cluster up, or repair it. Returns when pods can be scheduled on both nodes."""
    if os.geteuid() != 0:
        raise ClusterError("the local cluster needs root (mounts, namespaces, cgroups); run as root, or CLUSTER=kind")
    with only_one(paths):
        timings = Timings("up")
        trouble = problems(paths)
        if not trouble:
            say(f"the cluster is up, nothing to do ({timings.total:.1f} s); KUBECONFIG={paths.kubeconfig}")
            return
        say("bringing the local cluster up")
        _start_all(paths, timings)
        timings.save(paths.timings)
        say(f"the cluster is up after {timings.total:.1f} s; KUBECONFIG={paths.kubeconfig}")


def _start_all(paths: Paths, timings: Timings) -> None:
    missing = packages.needed()
    if missing:
        with timings.part("operating system packages"):
            packages.install(missing)
    with timings.part("programs"):
        build.build_programs(paths)
    if _stale(paths):
        with timings.part("remains of an earlier cluster"):
            _stop_all(paths)
    with timings.part("certificates, network"):
        pki.make(paths)
        _write_configuration(paths)
        system.set_up_network(paths)
    _check_ports(paths)
    with timings.part("etcd, registry, container runtimes"):
        processes.ensure(paths, components.etcd(paths))
        processes.ensure(paths, components.registry(paths))
        _wait(paths, "etcd", seconds=30)
        processes.ensure(paths, components.api_server(paths))
        for node in NODES:
            nodes.start_runtime(paths, node)
        _wait(paths, "registry", seconds=30)
        if builder.registry_digest(PAUSE_IMAGE) is None:
            builder.push_pause(paths)
        for node in NODES:
            processes.wait_for(
                f"containerd of {node.name}",
                lambda node=node: nodes.runtime_answers(paths, node),  # type: ignore[misc]
                seconds=30,
                alive=lambda node=node: nodes.dead(paths, [f"containerd-{node.name}"]),  # type: ignore[misc]
            )
    with timings.part("API server"):
        client = api.Api(paths.kubeconfig)
        processes.wait_for(
            "the API server", client.is_ready, seconds=90, alive=lambda: nodes.dead(paths, ["etcd", "kube-apiserver"])
        )
    with timings.part("controllers, scheduler, nodes, DNS"):
        _apply(paths)
        for program in (components.controllers(paths), components.scheduler(paths), components.proxy(paths)):
            processes.ensure(paths, program)
        for node in NODES:
            nodes.start_kubelet(paths, node)
        for program in (components.dns(paths), components.provisioner(paths)):
            processes.ensure(paths, program)
        for name in HEALTH:
            _wait(paths, name, seconds=90)
        for node in NODES:
            wait_for_node(paths, node)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        processes.wait_for("the default service account", lambda: client.exists(account), seconds=60)


def _stale(paths: Paths) -> bool:
    """Whether records are from before the machine's last start: then nothing they name exists any more."""
    records = [processes.recorded(paths, name) for name in processes.names(paths)]
    return any(record is not None and record.boot != processes.boot_id() for record in records)


def _write_configuration(paths: Paths) -> None:
    folder = packages.cni_folder()
    if folder is None:
        raise ClusterError("no network plugins (ptp) found; install containernetworking-plugins")
    paths.volumes.mkdir(parents=True, exist_ok=True)
    for path, text in components.configuration(paths, cni_folder=folder).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _check_ports(paths: Paths) -> None:
    """Refuse early and by name when another program holds an address we need."""
    for name in ("etcd", "registry"):
        if processes.running(paths, name) is None and api.answers(HEALTH[name]):
            raise ClusterError(
                f"{HEALTH[name]} already answers, and not from this cluster: another one runs, perhaps with another "
                "TRAINYARD_CLUSTER_DIR; take that one down first"
            )


def _wait(paths: Paths, name: str, *, seconds: float) -> None:
    url = HEALTH[name]
    processes.wait_for(name, lambda: api.answers(url), seconds=seconds, alive=lambda: nodes.dead(paths, [name]))


def _apply(paths: Paths) -> None:
    folder = str(SOURCES / "manifests")
    system.run(
        str(paths.bin / "kubectl"), "--kubeconfig", str(paths.kubeconfig), "apply", "--server-side", "-f", folder
    )


def wait_for_node(paths: Paths, node: Node, *, seconds: float = 90) -> None:
    """Until the node is Ready and advertises its GPUs."""
    client = api.Api(paths.kubeconfig)

    def ready() -> bool:
        try:
            found = client.get(f"/api/v1/nodes/{node.name}")
            if node.gpus and api.allocatable(found, GPU_RESOURCE) != node.gpus:
                advertise_gpus(client, node)
                return False
            return api.node_is_ready(found)
        except OSError:
            return False

    alive = [f"kubelet-{node.name}", f"containerd-{node.name}"]
    processes.wait_for(f"node {node.name}", ready, seconds=seconds, alive=lambda: nodes.dead(paths, alive))


def advertise_gpus(client: api.Api, node: Node) -> None:
    """Say that the node has GPUs, as a device plugin would; a kubelet may forget it when it starts anew."""
    amount = {GPU_RESOURCE: str(node.gpus)}
    client.merge(f"/api/v1/nodes/{node.name}/status", {"status": {"capacity": amount, "allocatable": amount}})


def programs(paths: Paths) -> list[Program]:
    """Every process of the cluster, in the order of starting."""
    per_node = [
        program
        for node in NODES
        for program in (
            nodes.anchor(paths, node),
            components.containerd(paths, node),
            components.kubelet(paths, node),
        )
    ]
    control = [components.api_server, components.controllers, components.scheduler]
    rest = [components.proxy, components.dns, components.provisioner]
    return [
        components.etcd(paths),
        components.registry(paths),
        *(make(paths) for make in control),
        *per_node,
        *(make(paths) for make in rest),
    ]


def problems(paths: Paths) -> list[str]:
    """What keeps the cluster from being whole; empty if all is well."""
    found = []
    try:
        for program in programs(paths):
            record = processes.running(paths, program.name)
            if record is None:
                found.append(f"{program.name} does not run")
            elif record.fingerprint != program.fingerprint():
                found.append(f"{program.name} runs with an older configuration")
    except FileNotFoundError as error:
        return [f"{error.filename} is not there yet"]
    if build.is_outdated(paths):
        found.append("the programs' sources have changed")
    if found:
        return found
    found += [f"{name} does not answer at {url}" for name, url in HEALTH.items() if not api.answers(url)]
    client = api.Api(paths.kubeconfig)
    if not client.is_ready():
        return [*found, "the API server is not ready"]
    for node in NODES:
        found += _node_problems(client, node)
    return found


def _node_problems(client: api.Api, node: Node) -> list[str]:
    try:
        found: dict[str, Any] = client.get(f"/api/v1/nodes/{node.name}")
    except OSError as error:
        return [f"node {node.name}: {error}"]
    trouble = [] if api.node_is_ready(found) else [f"node {node.name} is not Ready"]
    if node.gpus and api.allocatable(found, GPU_RESOURCE) != node.gpus:
        trouble.append(f"node {node.name} does not advertise {node.gpus} {GPU_RESOURCE}")
    return trouble


def down(paths: Paths, *, purge: bool) -> None:
    """End the cluster and undo what it changed on the machine; `purge` also removes programs and images."""
    with only_one(paths):
        timings = Timings("down")
        with timings.part("processes, mounts, network"):
            _stop_all(paths)
        if purge:
            with timings.part("all state"):
                _purge(paths)
        else:
            timings.save(paths.timings)
    if purge:
        shutil.rmtree(paths.state, ignore_errors=True)
    kept = "nothing is kept" if purge else f"programs and images are kept in {paths.state}"
    say(f"the cluster is down after {timings.total:.1f} s; {kept}")


def _stop_all(paths: Paths) -> None:
    for node in NODES:
        nodes.stop_kubelet(paths, node)
    for node in NODES:
        nodes.stop(paths, node)
    for program in reversed(processes.names(paths)):
        processes.stop(paths, program)
    _unmount_below(paths.run)
    system.restore(paths)
    nodes.remove_mount_points()
    shutil.rmtree(paths.run, ignore_errors=True)
    paths.kubeconfig.unlink(missing_ok=True)


def _unmount_below(folder: Path) -> None:
    """Nothing of ours is mounted in the machine's own view; this is for what somebody else put there."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounted):
        if Path(mount).is_relative_to(folder):
            system.run("umount", mount)


def _purge(paths: Paths) -> None:
    builder.remove_all(paths)
    _unmount_below(paths.state)


def show_status(paths: Paths) -> bool:
    """Print every process with pid, memory and state, then the nodes. True if the cluster is whole."""
    total = 0.0
    for name in [program.name for program in _known_programs(paths)]:
        record = processes.running(paths, name)
        memory = processes.resident_mib(record.pid) if record else 0.0
        total += memory
        say(f"{name:26} {record.pid if record else '-':>8} {memory:8.1f} MiB  {'running' if record else 'not running'}")
    say(f"{'together':26} {'':>8} {total:8.1f} MiB")
    trouble = problems(paths)
    for line in trouble:
        say(f"problem: {line}")
    if not trouble:
        say(f"the cluster is whole; KUBECONFIG={paths.kubeconfig}")
    return not trouble


def _known_programs(paths: Paths) -> list[Program]:
    return programs(paths)


def print_pids(paths: Paths) -> None:
    """One JSON object, process name to pid, of what runs now."""
    running = {name: processes.running(paths, name) for name in processes.names(paths)}
    say(json.dumps({name: record.pid for name, record in running.items() if record}, indent=1))


def restart_api_server(paths: Paths, *, how: int = signal.SIGKILL) -> None:
    """Kill the API server, start it again and wait until it is ready."""
    with only_one(paths):
        processes.stop(paths, "kube-apiserver", how=how)
        processes.start(paths, components.api_server(paths))
        client = api.Api(paths.kubeconfig)
        processes.wait_for(
            "the API server", client.is_ready, seconds=90, alive=lambda: nodes.dead(paths, ["kube-apiserver"])
        )


def node_by_name(name: str) -> Node:
    for node in NODES:
        if node.name == name:
            return node
    raise ClusterError(f"there is no node {name!r}; there are: {', '.join(n.name for n in NODES)}")


def stop_node(paths: Paths, node: Node) -> None:
    """End the node's kubelet only: to the cluster the node is lost, while its containers go on."""
    with only_one(paths):
        ran = nodes.stop_kubelet(paths, node)
    say(f"kubelet of {node.name} {'ended' if ran else 'was not running'}")


def start_node(paths: Paths, node: Node) -> None:
    with only_one(paths):
        nodes.start_kubelet(paths, node)
        wait_for_node(paths, node)
    say(f"node {node.name} is Ready")
