"""The same two nodes on kind, for machines that have Docker: kind's cluster, and a registry container beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable

from cluster import distribution, engine, system
from cluster.check import Check
from cluster.errors import ClusterError
from cluster.lock import only_one
from cluster.settings import ARCANINE, GPU_RESOURCE, REGISTRY, REGISTRY_PORT, SOURCES, Paths
from cluster.timing import Timings, say

CLUSTER = "trainyard"
REGISTRY_CONTAINER = "trainyard-registry"
REGISTRY_IMAGE = "docker.io/library/registry:2"


def docker_answers() -> bool:
    return engine.find(["docker"]) is not None


class Kind:
    """Offers what the local cluster offers, by way of kind and docker."""

    def __init__(self, state: Paths) -> None:
        self._paths = state

    def up(self) -> None:
        _need_tools()
        with only_one(self._paths):
            timings = Timings("up")
            with timings.part("registry"):
                _start_registry()
            if CLUSTER not in system.run("kind", "get", "clusters").split():
                with timings.part("cluster"):
                    config = ["--config", str(SOURCES / "kind.yaml"), "--kubeconfig", str(self._paths.kubeconfig)]
                    system.run("kind", "create", "cluster", *config, "--wait", "180s")
            with timings.part("registry for the nodes, GPU"):
                self._connect()
                self._advertise_gpus()
            timings.save(self._paths.timings)
            say(f"the cluster is up after {timings.total:.1f} s; KUBECONFIG={self._paths.kubeconfig}")

    def _connect(self) -> None:
        """Let the nodes find localhost:5001 where it really is: in the registry's container on their network."""
        networks = system.run("docker", "inspect", "-f", "{{json .NetworkSettings.Networks}}", REGISTRY_CONTAINER)
        if "kind" not in json.loads(networks):
            system.run("docker", "network", "connect", "kind", REGISTRY_CONTAINER)
        folder = f"/etc/containerd/certs.d/{REGISTRY}"
        script = f"mkdir -p {folder} && cat > {folder}/hosts.toml"
        for node in system.run("kind", "get", "nodes", "--name", CLUSTER).split():
            hosts = f'[host."http://{REGISTRY_CONTAINER}:5000"]\n'
            system.run("docker", "exec", "-i", node, "sh", "-c", script, text=hosts)
        system.run("kind", "export", "kubeconfig", "--name", CLUSTER, "--kubeconfig", str(self._paths.kubeconfig))

    def _advertise_gpus(self) -> None:
        amount = {GPU_RESOURCE: str(ARCANINE.gpus)}
        patch = json.dumps({"status": {"capacity": amount, "allocatable": amount}})
        nodes = self._kubectl("get", "nodes", "-l", f"kubernetes.io/hostname={ARCANINE.name}", "-o", "name").split()
        if not nodes:
            raise ClusterError(f"kind's cluster has no node labelled kubernetes.io/hostname={ARCANINE.name}")
        for node in nodes:
            self._kubectl("patch", node, "--subresource=status", "--type=merge", "-p", patch)

    def _kubectl(self, *words: str) -> str:
        kubectl = engine.kubectl_path(self._paths.bin / "kubectl")
        return system.run(str(kubectl), "--kubeconfig", str(self._paths.kubeconfig), *words)

    def down(self, *, purge: bool) -> None:
        _need_tools()
        with only_one(self._paths):
            system.run("kind", "delete", "cluster", "--name", CLUSTER)
            self._paths.kubeconfig.unlink(missing_ok=True)
            if purge and system.succeeds("docker", "inspect", REGISTRY_CONTAINER):
                system.run("docker", "rm", "--force", "--volumes", REGISTRY_CONTAINER)
        say("the cluster is down; " + ("nothing is kept" if purge else "the registry with its images is kept"))

    def status(self) -> bool:
        _need_tools()
        if CLUSTER not in system.run("kind", "get", "clusters").split():
            say(f"kind has no cluster named {CLUSTER}")
            return False
        say(self._kubectl("get", "nodes", "-o", "wide").strip())
        return True

    def build_images(self, names: Iterable[str]) -> None:
        _need_tools()
        for image in engine.build_and_push("docker", names, registry=REGISTRY):
            say(f"pods can use {image}")

    def load(self, image: str) -> None:
        _need_tools()
        engine.load("docker", image, registry=REGISTRY)

    def check(self) -> Check:
        return Check(
            kubectl=engine.kubectl_path(self._paths.bin / "kubectl"),
            kubeconfig=self._paths.kubeconfig,
            image=distribution.PUBLIC_BASE,
        )


def _need_tools() -> None:
    if shutil.which("kind") is None:
        raise ClusterError("CLUSTER=kind needs kind on the PATH; install it, or use CLUSTER=local")
    if not docker_answers():
        raise ClusterError(
            "CLUSTER=kind needs a Docker engine, and `docker info` does not answer; or use CLUSTER=local"
        )


def _start_registry() -> None:
    if not system.succeeds("docker", "inspect", REGISTRY_CONTAINER):
        publish = f"127.0.0.1:{REGISTRY_PORT}:5000"
        options = ["--detach", "--restart=always", "--publish", publish, "--name", REGISTRY_CONTAINER]
        system.run("docker", "run", *options, REGISTRY_IMAGE)
    system.run("docker", "start", REGISTRY_CONTAINER)
