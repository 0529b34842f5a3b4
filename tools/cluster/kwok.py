"""Fake nodes for load tests: kwok plays their kubelets, so pods on them start and end at once and cost nothing.

kwok is a second Go module, since it needs newer Kubernetes libraries than the cluster's own programs; it is built when
first asked for. A kwok built from its module has no built-in stages (what happens to a pod and when), so they are
read from the module's folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster import api, build, health, processes, system
from cluster.errors import ClusterError
from cluster.lock import only_one
from cluster.processes import Program
from cluster.settings import GPU_RESOURCE, SOURCES, Paths
from cluster.timing import Timings, say

MODULE = "sigs.k8s.io/kwok"
STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
LABEL = "trainyard.local/fake"
PORT = 10247
CAPACITY = {"cpu": "32", "memory": "256Gi", "pods": "1000", GPU_RESOURCE: "8"}


def fake_node(number: int) -> dict[str, Any]:
    """A Node that only pods which tolerate it can use: real pods would hang there for ever."""
    name = f"fake-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {LABEL: "true", "kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": LABEL, "value": "true", "effect": "NoSchedule"}]},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY},
    }


def start(paths: Paths, *, count: int) -> None:
    """Run kwok and make nodes fake-0 ... fake-(count - 1)."""
    if count < 1:
        raise ClusterError(f"--nodes is {count}; it must be at least 1")
    with only_one(paths):
        timings = Timings("kwok")
        if not api.Api(paths.kubeconfig).is_ready():
            raise ClusterError("the API server is not ready; run `python3 tools/cluster up` first")
        folder = SOURCES / "kwok"
        with timings.part("program"):
            build.build_module(paths, folder, "kwok", flags="-s -w", package=f"{MODULE}/cmd/kwok")
        processes.ensure(paths, _program(paths))
        health.wait_for_url(paths, "kwok", f"http://127.0.0.1:{PORT}/healthz", seconds=30)
        nodes = {"apiVersion": "v1", "kind": "List", "items": [fake_node(number) for number in range(count)]}
        _kubectl(paths, "apply", "--server-side", "-f", "-", text=json.dumps(nodes))
        _kubectl(paths, "wait", "node", "-l", LABEL, "--for=condition=Ready", "--timeout=60s")
        say(
            f"{count} fake nodes are Ready after {timings.total:.1f} s; pods need the toleration {LABEL}=true:NoSchedule"
        )


def stop(paths: Paths) -> None:
    """Remove the fake nodes, with the pods on them, and end kwok."""
    with only_one(paths):
        _kubectl(paths, "delete", "node", "-l", LABEL, "--ignore-not-found")
        ran = processes.stop(paths, "kwok")
    say("kwok has ended" if ran else "kwok was not running")


def _program(paths: Paths) -> Program:
    stages = paths.config / "kwok-stages.yaml"
    module = system.run("go", "-C", str(SOURCES / "kwok"), "list", "-m", "-f", "{{.Dir}}", MODULE).strip()
    files = [file for stage in STAGES for file in sorted(Path(module, "kustomize/stage", stage).glob("*.yaml"))]
    texts = [file.read_text() for file in files if file.name != "kustomization.yaml"]
    if not texts:
        raise ClusterError(f"no stages below {module}/kustomize/stage; this version of kwok has them elsewhere")
    stages.write_text("\n---\n".join(texts))
    command = (
        str(paths.bin / "kwok"),
        f"--kubeconfig={paths.kubeconfig}",
        f"--config={stages}",
        f"--manage-nodes-with-label-selector={LABEL}=true",
        f"--server-address=127.0.0.1:{PORT}",
    )
    return Program("kwok", command, (build.key_file(paths.bin / "kwok"), stages))


def _kubectl(paths: Paths, *words: str, text: str | None = None) -> str:
    return system.run(str(paths.bin / "kubectl"), "--kubeconfig", str(paths.kubeconfig), *words, text=text)
