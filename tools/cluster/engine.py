"""Docker or podman, for the kinds of cluster that are not made on this machine by the driver itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from cluster import distribution, images, system
from cluster.errors import ClusterError
from cluster.settings import REPOSITORY
from cluster.timing import Timings, say


def find(names: Iterable[str] = ("docker", "podman")) -> str | None:
    """The first of these engines that is installed and answers."""
    return next((name for name in names if shutil.which(name) and system.succeeds(name, "info")), None)


def kubectl_path(own: Path) -> Path:
    """kubectl from the PATH, or the one built for the local cluster."""
    found = shutil.which("kubectl")
    if found:
        return Path(found)
    if own.exists():
        return own
    raise ClusterError(
        "no kubectl on the PATH; install it, or run `CLUSTER=local python3 tools/cluster up` once, which builds one"
    )


def build_and_push(engine: str, names: Iterable[str], *, registry: str) -> list[str]:
    """Build the project's images on their public base and push them as <registry>/trainyard/<name>:dev."""
    timings = Timings("images")
    pushed = []
    for image in images.chosen(names):
        target = f"{registry}/trainyard/{image.name}:dev"
        arguments = {"BASE": distribution.PUBLIC_BASE, **image.arguments}
        words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        dockerfile = str(REPOSITORY / image.dockerfile)
        with timings.part(f"build {image.name}"):
            _shown([engine, "build", *words, "--file", dockerfile, "--tag", target, str(REPOSITORY)])
        push(engine, target, timings)
        pushed.append(target)
    return pushed


def push(engine: str, image: str, timings: Timings) -> None:
    with timings.part(f"push {image}"):
        _shown([engine, "push", image])


def load(engine: str, image: str, *, registry: str) -> None:
    """Push an image of the engine's store to the registry; says under which name pods can use it."""
    if not system.succeeds(engine, "image", "inspect", image):
        raise ClusterError(f"{engine} has no image {image!r}; build or pull it first")
    target = f"{registry}/{images.path_in_registry(image)}"
    system.run(engine, "tag", image, target)
    push(engine, target, Timings("load"))
    say(f"pods can use {target}")


def _shown(command: list[str]) -> None:
    """Run with its output on the terminal."""
    if subprocess.run(command, check=False).returncode != 0:
        raise ClusterError(f"this failed, the output above says why: {' '.join(command)}")
