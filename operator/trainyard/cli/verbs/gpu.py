"""`trainyard gpu`: what the device does, seen from the run's own pod; or which nodes have one."""

import argparse
import subprocess
from collections import Counter
from collections.abc import Mapping
from typing import Any

from trainyard.api.names import TRAINER_CONTAINER
from trainyard.cli.cluster import add_cluster, kubectl_words, runs_of
from trainyard.cli.exits import Exit, Missing, Refused
from trainyard.cli.inspection import live_pod
from trainyard.cli.kubectl import program
from trainyard.cli.options import completes
from trainyard.cli.printing import table
from trainyard.client import NotAllowed, Runs

NATIVE = ("cpu", "memory", "ephemeral-storage", "pods")
NOT_FOUND_CODES = (126, 127)


def arguments(parser: argparse.ArgumentParser) -> None:
    name = parser.add_argument(
        "name", metavar="RUN", nargs="?", default="", help="A run that works; without it, the cluster's nodes."
    )
    completes("run", name)
    parser.set_defaults(takes_command=True)
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Show the GPU of a run's pod (nvidia-smi), or the cluster's GPU nodes.

    After --, options of nvidia-smi: trainyard gpu RUN -- -q. With a run, the exit code is that of nvidia-smi. Needs kubectl then.
    """
    runs = runs_of(options)
    return of_run(runs, options) if options.name else of_nodes(runs)


def of_run(runs: Runs, options: argparse.Namespace) -> int:
    run = runs.get(options.name.rpartition("/")[2])
    pod = live_pod(runs, run)
    if pod is None:
        raise Missing(f"no pod of {run.name} works just now: {run.standing}")
    name = pod["metadata"]["name"]
    words = [program(), "exec", *kubectl_words(options, namespace=run.namespace), name, "-c", TRAINER_CONTAINER]
    done = subprocess.run([*words, "--", "nvidia-smi", *options.command], capture_output=True, text=True)
    if done.returncode in NOT_FOUND_CODES or "executable file not found" in done.stderr:
        device = (run.status.get("effective") or {}).get("device") or "not known yet"
        raise Refused(f"pod {name} has no nvidia-smi; the device that {run.name} trains on: {device}")
    print((done.stdout or done.stderr).rstrip())
    return done.returncode


def of_nodes(runs: Runs) -> int:
    lines = node_table(runs)
    if not lines:
        raise Missing("no node of this cluster offers a GPU: is the device plugin installed?")
    print("\n".join(lines))
    return Exit.DONE


def node_table(runs: Runs) -> list[str]:
    """Nodes with devices, and how many of these are taken; empty where there are none."""
    nodes = [node for node in runs.api.items("/api/v1/nodes") if devices(node)]
    if not nodes:
        return []
    try:
        taken: Counter[tuple[str, str]] | None = _taken(runs)
    except NotAllowed:
        taken = None
    rows = []
    for node in nodes:
        name = node["metadata"]["name"]
        taints = ", ".join(f"{t['key']}={t.get('value', '')}:{t['effect']}" for t in node["spec"].get("taints") or ())
        for resource, amount in devices(node).items():
            used = "?" if taken is None else str(taken[name, resource])
            rows.append((name, resource, used, amount, taints or "none"))
    return table(("NODE", "DEVICE", "TAKEN", "ALL", "TAINTS"), rows)


def _taken(runs: Runs) -> Counter[tuple[str, str]]:
    """How many of each device of each node the pods have that are not over."""
    found: Counter[tuple[str, str]] = Counter()
    for pod in runs.api.items("/api/v1/pods", fieldSelector="status.phase!=Succeeded,status.phase!=Failed"):
        for container in pod["spec"].get("containers") or ():
            for resource, amount in ((container.get("resources") or {}).get("requests") or {}).items():
                if is_device(resource):
                    found[pod["spec"].get("nodeName", ""), resource] += int(amount)
    return found


def devices(node: Mapping[str, Any]) -> dict[str, str]:
    """What a node offers beyond CPU and memory."""
    return {
        name: str(n)
        for name, n in (node["status"].get("allocatable") or {}).items()
        if is_device(name) and str(n) != "0"
    }


def is_device(resource: str) -> bool:
    return "/" in resource and resource not in NATIVE and not resource.startswith(("hugepages-", "attachable-volumes-"))
