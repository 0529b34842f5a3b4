"""Where the local cluster keeps its state, and the addresses its parts use.

Everything that another module would otherwise repeat as a literal stands here. The addresses are private to the
machine: they sit on a bridge without ports, so that nothing outside can reach them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "tools" / "cluster"

KUBERNETES_VERSION = "v1.35.4"
GPU_RESOURCE = "nvidia.com/gpu"

HOST_ADDRESS = "10.91.0.1"
POD_NETWORK = "10.91.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
SERVICE_OF_API = "10.96.0.1"
LINK = "trainyard0"
NFT_TABLE = "trainyard"

API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
REGISTRY_PORT = 5001
DNS_READY_PORT = 8181
DNS_HEALTH_PORT = 8182
CONTROLLER_PORT = 10257
SCHEDULER_PORT = 10259
PROXY_HEALTH_PORT = 10256
PROXY_METRICS_PORT = 10249

REGISTRY = f"localhost:{REGISTRY_PORT}"
PAUSE_IMAGE = f"{REGISTRY}/trainyard/pause:1"
BASE_IMAGE = f"{REGISTRY}/trainyard/base:bookworm"


@dataclass(frozen=True)
class Node:
    """One node: a kubelet and a containerd of its own in a mount namespace of their own."""

    name: str
    address: str
    pod_network: str
    kubelet_port: int
    health_port: int
    taint: str = ""
    """Value of the taint `dedicated=<value>:NoSchedule`; empty for none."""
    gpus: int = 0

    @property
    def cgroup(self) -> str:
        return f"trainyard-{self.name}"


FORGE = Node("forge", "10.91.0.2", "10.91.2.0/24", 10250, 10248)
ARCANINE = Node("arcanine", "10.91.0.3", "10.91.3.0/24", 10350, 10348, taint="arcanine", gpus=1)
NODES = (FORGE, ARCANINE)


@dataclass(frozen=True)
class Paths:
    """The folder that holds all state, and the places in it."""

    state: Path

    @property
    def bin(self) -> Path:
        return self.state / "bin"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def run(self) -> Path:
        """What lives as long as the running cluster: process records, rendered configuration, databases."""
        return self.state / "run"

    @property
    def config(self) -> Path:
        return self.run / "config"

    @property
    def pki(self) -> Path:
        return self.run / "pki"

    @property
    def volumes(self) -> Path:
        return self.run / "volumes"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def timings(self) -> Path:
        return self.state / "timings.json"

    @property
    def registry(self) -> Path:
        return self.state / "registry"

    @property
    def builder(self) -> Path:
        """The image builder's store and what it remembers about finished builds."""
        return self.state / "builder"

    def node(self, node: Node) -> Path:
        return self.run / node.name

    def images_of(self, node: Node) -> Path:
        """containerd's own store; it outlives a plain `down`, so that images need not be pulled again."""
        return self.state / "nodes" / node.name

    def containerd_socket(self, node: Node) -> Path:
        return self.node(node) / "containerd.sock"


def paths() -> Paths:
    """The state folder: `TRAINYARD_CLUSTER_DIR`, or `.cluster` in the repository."""
    chosen = os.environ.get("TRAINYARD_CLUSTER_DIR")
    return Paths(Path(chosen).resolve() if chosen else REPOSITORY / ".cluster")
