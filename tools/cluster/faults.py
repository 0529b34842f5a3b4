"""Small acts of destruction and repair for fault tests: a node lost, the API server away."""

from __future__ import annotations

import signal

from cluster import components, health, nodes, processes
from cluster.errors import ClusterError
from cluster.lock import only_one
from cluster.settings import NODES, Node, Paths
from cluster.timing import say


def node_by_name(name: str) -> Node:
    for node in NODES:
        if node.name == name:
            return node
    raise ClusterError(f"there is no node {name!r}; there are: {', '.join(n.name for n in NODES)}")


def stop_node(paths: Paths, name: str) -> None:
    """End the node's kubelet only: to the cluster the node is lost, while its containers go on."""
    node = node_by_name(name)
    with only_one(paths):
        ran = nodes.stop_kubelet(paths, node)
    say(f"kubelet of {node.name} {'ended' if ran else 'was not running'}")


def start_node(paths: Paths, name: str) -> None:
    """Start the node's kubelet again; returns when the node is Ready."""
    node = node_by_name(name)
    with only_one(paths):
        nodes.start_kubelet(paths, node)
        health.wait_for_node(paths, node)
    say(f"node {node.name} is Ready")


def restart_api_server(paths: Paths) -> None:
    """Kill the API server, start it again and wait until it is ready."""
    with only_one(paths):
        processes.stop(paths, "kube-apiserver", how=signal.SIGKILL)
        processes.start(paths, components.api_server(paths))
        health.wait_for_api(paths)
    say("the API server is ready")
