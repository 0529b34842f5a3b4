"""Somebody's own cluster: the current kubeconfig's, used only after its name was given.

Nothing is created or ended here. The name is asked for, or taken from TRAINYARD_CONTEXT, so that tests never run in a
cluster that merely happened to be the current one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from cluster import distribution, engine, system
from cluster.check import Check
from cluster.errors import ClusterError
from cluster.settings import Paths
from cluster.timing import say


class Existing:
    """Offers what a cluster of one's own can: a check of its name and health, and images through its registry."""

    def __init__(self, state: Paths) -> None:
        self._paths = state

    def _kubectl(self, *words: str) -> str:
        return system.run(str(engine.kubectl_path(self._paths.bin / "kubectl")), *words).strip()

    def _confirmed(self) -> str:
        context = self._kubectl("config", "current-context")
        ask = (lambda: input(f"Type the name of the context to use ({context}): ")) if sys.stdin.isatty() else None
        confirm(context, given=os.environ.get("TRAINYARD_CONTEXT"), ask=ask)
        return context

    def up(self) -> None:
        context = self._confirmed()
        self._kubectl("get", "--raw", "/readyz")
        say(f"using the cluster of context {context}; its API server is ready")

    def down(self, *, purge: bool) -> None:
        say("CLUSTER=existing: the cluster is yours and is left as it is")

    def status(self) -> bool:
        self._confirmed()
        say(self._kubectl("get", "nodes", "-o", "wide"))
        return True

    def build_images(self, names: Iterable[str]) -> None:
        self._confirmed()
        for image in engine.build_and_push(_engine(), names, registry=_registry()):
            say(f"pods can use {image}")

    def load(self, image: str) -> None:
        self._confirmed()
        engine.load(_engine(), image, registry=_registry())

    def check(self) -> Check:
        self._confirmed()
        kubeconfig = Path(os.environ.get("KUBECONFIG", "~/.kube/config")).expanduser()
        kubectl = engine.kubectl_path(self._paths.bin / "kubectl")
        return Check(kubectl=kubectl, kubeconfig=kubeconfig, image=distribution.PUBLIC_BASE)


def confirm(context: str, *, given: str | None, ask: Callable[[], str] | None) -> None:
    """ClusterError unless the person has named the current context, in the environment or when asked."""
    if given is None and ask is None:
        raise ClusterError(
            f"CLUSTER=existing would use the context {context!r}; set TRAINYARD_CONTEXT={context} to allow that"
        )
    answer = given if given is not None else ask().strip() if ask else ""
    if answer != context:
        where = "TRAINYARD_CONTEXT is" if given is not None else "the answer was"
        raise ClusterError(
            f"{where} {answer!r}, but the current context is {context!r}; nothing was done. "
            f"Switch with `kubectl config use-context`, or name {context!r}"
        )


def _registry() -> str:
    registry = os.environ.get("TRAINYARD_REGISTRY", "").rstrip("/")
    if not registry:
        raise ClusterError(
            "CLUSTER=existing needs a registry that your nodes can pull from: set TRAINYARD_REGISTRY, for example to "
            "registry.example.com/team"
        )
    return registry


def _engine() -> str:
    found = engine.find()
    if found is None:
        raise ClusterError("building images for CLUSTER=existing needs docker or podman, and neither answers")
    return found
