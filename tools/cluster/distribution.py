"""The base image: a small Debian with Python, made from the machine's own package mirror.

A machine without access to an image registry can still make it; elsewhere it does no harm. On other distributions the
Dockerfiles' public default is used instead, and so it is when TRAINYARD_BASE_IMAGE names an image.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from cluster import builder, system
from cluster.errors import ClusterError
from cluster.settings import BASE_IMAGE, Paths
from cluster.timing import Timings, say

PACKAGES = ("ca-certificates", "git", "python3", "python3-venv")
RECIPE = "2"
"""Change it when this module makes the same packages into another image."""
PUBLIC_BASE = "docker.io/library/python:3.12-slim-bookworm"
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))


def base_image(paths: Paths, timings: Timings) -> tuple[str, str]:
    """Name and key of the base image, made if it is not there."""
    chosen = os.environ.get("TRAINYARD_BASE_IMAGE")
    if chosen:
        return chosen, chosen
    release = parse_release(Path("/etc/os-release").read_text())
    if release.get("ID") != "debian":
        return PUBLIC_BASE, PUBLIC_BASE
    mirror, suite = debian_mirror(_source_texts()), release["VERSION_CODENAME"]
    if mirror is None:
        raise ClusterError(
            "no Debian mirror found in /etc/apt/sources.list or sources.list.d; name a base image with python3 and "
            "git in TRAINYARD_BASE_IMAGE"
        )
    key = hashlib.sha256(" ".join([RECIPE, suite, *PACKAGES]).encode()).hexdigest()
    note = paths.builder / "base.key"
    if not (note.exists() and note.read_text() == key and builder.has_image(paths, BASE_IMAGE)):
        with timings.part("base image"):
            _make(paths, mirror=mirror, suite=suite)
        note.write_text(key)
    return BASE_IMAGE, key


def parse_release(text: str) -> dict[str, str]:
    """/etc/os-release as a mapping."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name: value.strip().strip('"') for name, _, value in pairs}


def debian_mirror(texts: Iterable[str]) -> str | None:
    """The first mirror in apt's source lists that carries the whole distribution, in either of apt's formats."""
    for text in texts:
        for line in text.splitlines():
            old = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+://\S+)\s+(\S+)\s", line)
            new = re.match(r"URIs:\s*(\S+)", line)
            found = old or new
            if found and "security" not in line and "backports" not in line:
                return found[1].rstrip("/")
    return None


def _source_texts() -> list[str]:
    single, folder = SOURCES
    files = [single] if single.exists() else []
    files += sorted(p for p in folder.glob("*") if p.suffix in (".list", ".sources")) if folder.is_dir() else []
    return [file.read_text() for file in files]


def _make(paths: Paths, *, mirror: str, suite: str) -> None:
    say(f"making the base image: Debian {suite} with {', '.join(PACKAGES)}")
    root = paths.builder / "base"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    included = f"--include={','.join(PACKAGES)}"
    builder.run_script(
        ["debootstrap", "--variant=minbase", included, suite, str(root / "rootfs"), mirror], what="debootstrap"
    )
    rootfs = root / "rootfs"
    for place in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "var/log"):
        for path in (rootfs / place).glob("*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in ("etc/resolv.conf", "etc/hostname"):
        (rootfs / name).unlink(missing_ok=True)
    (rootfs / builder.CLIENT_CONFIG.strip("/")).mkdir(parents=True, exist_ok=True)
    archive = root / "rootfs.tar"
    system.run("tar", "--numeric-owner", "-C", str(rootfs), "-cf", str(archive), ".")
    container = builder.buildah(paths, "from", "scratch")
    try:
        builder.buildah(paths, "add", "--quiet", container, str(archive), "/")
        builder.buildah(paths, "config", "--cmd", "python3", "--env", "LANG=C.UTF-8", container)
        builder.buildah(paths, "commit", "--quiet", container, BASE_IMAGE)
    finally:
        builder.buildah(paths, "rm", container)
    shutil.rmtree(root)
