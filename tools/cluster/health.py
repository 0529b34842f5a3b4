"""What the cluster consists of and whether it is whole: for `up` to wait on, and for people to read."""

from __future__ import annotations

import json
import math
from typing import Any

from cluster import api, build, components, nodes, packages, processes
from cluster.processes import Program
from cluster.settings import (
    CONTROLLER_PORT,
    DNS_READY_PORT,
    ETCD_PORT,
    GPU_RESOURCE,
    HOST_ADDRESS,
    NODES,
    PROXY_HEALTH_PORT,
    REGISTRY_PORT,
    SCHEDULER_PORT,
    Node,
    Paths,
)
from cluster.timing import say

ENDPOINTS = {
    "etcd": f"http://127.0.0.1:{ETCD_PORT}/health",
    "registry": f"http://127.0.0.1:{REGISTRY_PORT}/v2/",
    "kube-controller-manager": f"https://127.0.0.1:{CONTROLLER_PORT}/healthz",
    "kube-scheduler": f"https://127.0.0.1:{SCHEDULER_PORT}/healthz",
    "kube-proxy": f"http://127.0.0.1:{PROXY_HEALTH_PORT}/healthz",
    "coredns": f"http://{HOST_ADDRESS}:{DNS_READY_PORT}/ready",
    **{f"kubelet-{n.name}": f"http://127.0.0.1:{n.health_port}/healthz" for n in NODES},
}
"""Where a process says that it works; the API server and containerd are asked in other ways."""


def programs(paths: Paths) -> list[Program]:
    """Every process of the cluster, in the order of starting."""
    found = [components.etcd(paths), components.registry(paths), components.api_server(paths)]
    for node in NODES:
        found += [nodes.anchor(paths, node), components.containerd(paths, node)]
    found += [components.controllers(paths), components.scheduler(paths), components.proxy(paths)]
    found += [components.kubelet(paths, node) for node in NODES]
    return [*found, components.dns(paths), components.provisioner(paths)]


def wait_for_endpoint(paths: Paths, name: str, *, seconds: float) -> None:
    """Until the named process says at its known address that it works."""
    wait_for_url(paths, name, ENDPOINTS[name], seconds=seconds)


def wait_for_url(paths: Paths, name: str, url: str, *, seconds: float) -> None:
    """Until the named process answers at the address; fails at once when it has ended."""
    processes.wait_for(
        name, lambda: api.answers(url), seconds=seconds, alive=lambda: processes.first_dead(paths, [name])
    )


def wait_for_api(paths: Paths, *, seconds: float = 90) -> api.Api:
    """Until the API server is ready; a client for it."""
    client = api.Api(paths.kubeconfig)
    needed = ["etcd", "kube-apiserver"]
    processes.wait_for(
        "the API server", client.is_ready, seconds=seconds, alive=lambda: processes.first_dead(paths, needed)
    )
    return client


def wait_for_node(paths: Paths, node: Node, *, seconds: float = 90) -> None:
    """Until the node's present kubelet has said that it is Ready, and the node advertises its GPUs."""
    client = api.Api(paths.kubeconfig)
    kubelet = processes.running(paths, f"kubelet-{node.name}")
    since = math.floor(processes.started_at(kubelet)) if kubelet else 0.0

    def ready() -> bool:
        try:
            found = client.get(f"/api/v1/nodes/{node.name}")
            if not api.node_is_ready(found, since=since):
                return False
            if node.gpus and api.allocatable(found, GPU_RESOURCE) != node.gpus:
                advertise_gpus(client, node)
                return False
            return True
        except OSError:
            return False

    needed = [f"kubelet-{node.name}", f"containerd-{node.name}"]
    processes.wait_for(f"node {node.name}", ready, seconds=seconds, alive=lambda: processes.first_dead(paths, needed))


def advertise_gpus(client: api.Api, node: Node) -> None:
    """Say that the node has GPUs, as a device plugin would; a kubelet may forget it when it starts anew."""
    amount = {GPU_RESOURCE: str(node.gpus)}
    client.merge(f"/api/v1/nodes/{node.name}/status", {"status": {"capacity": amount, "allocatable": amount}})


def problems(paths: Paths) -> list[str]:
    """What keeps the cluster from being whole; empty if all is well."""
    if build.is_outdated(paths):
        return ["the programs are not built, or their sources have changed"]
    folder = packages.cni_folder()
    if folder is None or packages.needed():
        return ["packages of the operating system are missing"]
    for path, text in components.configuration(paths, cni_folder=folder).items():
        if not path.exists() or path.read_text() != text:
            return [f"{path} is not there or not as it should be"]
    try:
        found = [trouble for program in programs(paths) if (trouble := _process_problem(paths, program))]
    except FileNotFoundError as error:
        return [f"{error.filename} is not there yet"]
    found += [f"node {n.name} has lost its own {lost[0]}" for n in NODES if (lost := nodes.lost_folders(paths, n))]
    if found:
        return found
    found = [f"{name} does not answer at {url}" for name, url in ENDPOINTS.items() if not api.answers(url)]
    client = api.Api(paths.kubeconfig)
    if not client.is_ready():
        return [*found, "the API server is not ready"]
    return found + [trouble for node in NODES for trouble in _node_problems(client, node)]


def _process_problem(paths: Paths, program: Program) -> str | None:
    record = processes.running(paths, program.name)
    if record is None:
        return f"{program.name} does not run"
    if record.fingerprint != program.fingerprint():
        return f"{program.name} runs with an older configuration"
    return None


def _node_problems(client: api.Api, node: Node) -> list[str]:
    try:
        found: dict[str, Any] = client.get(f"/api/v1/nodes/{node.name}")
    except OSError as error:
        return [f"node {node.name}: {error}"]
    trouble = [] if api.node_is_ready(found) else [f"node {node.name} is not Ready"]
    if node.gpus and api.allocatable(found, GPU_RESOURCE) != node.gpus:
        trouble.append(f"node {node.name} does not advertise {node.gpus} {GPU_RESOURCE}")
    return trouble


def show(paths: Paths) -> bool:
    """Print every process with pid and memory, then what is wrong. True if the cluster is whole.

    Memory is the proportional share (PSS): pages that processes have in common, such as those of the one binary,
    count once over all of them.
    """
    total = 0.0
    for program in programs(paths):
        record = processes.running(paths, program.name)
        memory = processes.memory_mib(record.pid) if record else 0.0
        total += memory
        say(f"{program.name:26}{record.pid if record else '-':>9}{memory:9.1f} MiB{'' if record else '  not running'}")
    say(f"{'together':26}{'':9}{total:9.1f} MiB")
    trouble = problems(paths)
    for line in trouble:
        say(f"problem: {line}")
    if not trouble:
        say(f"the cluster is whole; KUBECONFIG={paths.kubeconfig}")
    return not trouble


def print_pids(paths: Paths) -> None:
    """One JSON object, process name to pid, of what runs now."""
    running = {name: processes.running(paths, name) for name in processes.names(paths)}
    say(json.dumps({name: record.pid for name, record in running.items() if record}, indent=1))
