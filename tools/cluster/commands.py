"""The command line, and what stands behind it.

CLUSTER chooses: `local` (two real nodes on this machine; no container engine needed), `kind` (needs Docker), or
`existing` (the cluster of the current kubeconfig). Without it: `local`, unless KUBECONFIG is set or a Docker engine
answers; then the choice is not obvious and has to be made.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cluster import existing, faults, health, images, kind, kwok, local
from cluster.check import Check
from cluster.errors import ClusterError
from cluster.settings import Paths, paths


class Cluster(Protocol):
    """What every kind of cluster can do."""

    def up(self) -> None: ...
    def down(self, *, purge: bool) -> None: ...
    def status(self) -> bool: ...
    def build_images(self, names: Iterable[str]) -> None: ...
    def load(self, image: str) -> None: ...
    def check(self) -> Check: ...


class Local:
    """The cluster of `local.py`, with commands of its own for fault tests."""

    def __init__(self, state: Paths) -> None:
        self._paths = state

    def up(self) -> None:
        local.up(self._paths)

    def down(self, *, purge: bool) -> None:
        local.down(self._paths, purge=purge)

    def status(self) -> bool:
        return health.show(self._paths)

    def build_images(self, names: Iterable[str]) -> None:
        images.build_images(self._paths, names)

    def load(self, image: str) -> None:
        images.load(self._paths, image)

    def check(self) -> Check:
        image = images.provide_base(self._paths)
        return Check(kubectl=self._paths.bin / "kubectl", kubeconfig=self._paths.kubeconfig, image=image)


KINDS: Mapping[str, Callable[[Paths], Cluster]] = {"local": Local, "kind": kind.Kind, "existing": existing.Existing}


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="tools/cluster", description=__doc__)
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    add("up", "bring the cluster up, or repair it")
    down = add("down", "end the cluster; programs and images stay for the next time")
    down.add_argument("--purge", action="store_true", help="remove programs and images too")
    add("status", "what runs, with its memory; exit status 1 if something is wrong")
    build = add("images", "build the project's images where they changed, and put them on every node")
    build.add_argument("names", nargs="*", metavar="NAME", help="operator, trainer; all if none is named")
    add("load", "put an image of the builder's store on every node").add_argument("image", metavar="IMAGE")
    add("check", "prove with pods that scheduling, volumes, DNS, services, logs and exec work")
    add("pids", "local only: process ids as JSON")
    node = add("node", "local only: stop or start the kubelet of one node")
    node.add_argument("action", choices=["stop", "start"])
    node.add_argument("name", metavar="NODE")
    add("apiserver", "local only: kill and start the API server").add_argument("action", choices=["restart"])
    fake = add("kwok", "local only: fake nodes for load tests, whose pods cost nothing")
    fake.add_argument("action", choices=["start", "stop"])
    fake.add_argument("--nodes", type=int, default=10, metavar="N", help="how many fake nodes (default: %(default)s)")
    return result


def kind_of_cluster(environment: Mapping[str, str], *, own: Path, docker_answers: Callable[[], bool]) -> str:
    """Which cluster is meant. ClusterError if CLUSTER is unknown, or unset where a choice has to be made.

    A KUBECONFIG that is the local cluster's `own` is no reason to ask.
    """
    wanted = environment.get("CLUSTER", "")
    if wanted and wanted not in KINDS:
        raise ClusterError(f"CLUSTER is {wanted!r}; it must be one of {', '.join(KINDS)}")
    if wanted:
        return wanted
    kubeconfig = environment.get("KUBECONFIG", "")
    if kubeconfig and Path(kubeconfig).absolute() == own:
        return "local"
    reason = f"KUBECONFIG is {kubeconfig}" if kubeconfig else ""
    if not reason and docker_answers():
        reason = "a Docker engine answers here"
    if reason:
        raise ClusterError(f"{reason}: say which cluster you mean with CLUSTER=local, CLUSTER=kind or CLUSTER=existing")
    return "local"


def main(words: Sequence[str]) -> int:
    chosen = parser().parse_args(words)
    try:
        state = paths()
        which = kind_of_cluster(os.environ, own=state.kubeconfig, docker_answers=kind.docker_answers)
        if chosen.command in ("pids", "node", "apiserver", "kwok"):
            if which != "local":
                raise ClusterError(f"`{chosen.command}` is offered by CLUSTER=local only, not by {which}")
            _run_local(chosen, state)
            return 0
        return _run(chosen, KINDS[which](state))
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _run(chosen: argparse.Namespace, cluster: Cluster) -> int:
    match chosen.command:
        case "up":
            cluster.up()
        case "down":
            cluster.down(purge=chosen.purge)
        case "status":
            return 0 if cluster.status() else 1
        case "images":
            cluster.build_images(chosen.names)
        case "load":
            cluster.load(chosen.image)
        case "check":
            cluster.check().run()
    return 0


def _run_local(chosen: argparse.Namespace, state: Paths) -> None:
    match chosen.command, getattr(chosen, "action", None):
        case "pids", _:
            health.print_pids(state)
        case "node", "stop":
            faults.stop_node(state, chosen.name)
        case "node", "start":
            faults.start_node(state, chosen.name)
        case "apiserver", _:
            faults.restart_api_server(state)
        case "kwok", "start":
            kwok.start(state, count=chosen.nodes)
        case "kwok", "stop":
            kwok.stop(state)
