"""Builds the cluster's programs once, and again only when their sources change."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from cluster.errors import ClusterError
from cluster.settings import KUBERNETES_VERSION, SOURCES, Paths
from cluster.timing import say

COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "helm",
    "coredns",
    "provisioner",
)
PROGRESS_EVERY_SECONDS = 20.0


def linker_flags(version: str) -> str:
    """Strip symbols and put the version in, as a release build of Kubernetes does."""
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    stamps = [f"-X {package}.{name}={value}" for package in packages for name, value in values.items()]
    return " ".join(["-s", "-w", *stamps])


def source_key(files: Iterable[Path], *, extra: str = "") -> str:
    """A key that changes exactly when a file's name or content, or `extra`, changes."""
    digest = hashlib.sha256(extra.encode())
    for path in sorted(files):
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def module_files(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix == ".go" or p.name in ("go.mod", "go.sum")]


def build_programs(paths: Paths) -> bool:
    """kubeall with its symlinks, and the pause program. True if anything was compiled."""
    paths.bin.mkdir(parents=True, exist_ok=True)
    built = build_module(paths, SOURCES / "kubeall", "kubeall", flags=linker_flags(KUBERNETES_VERSION))
    for name in COMPONENTS:
        link = paths.bin / name
        if not link.is_symlink():
            link.symlink_to("kubeall")
    return _build_pause(paths) or built


def build_module(paths: Paths, folder: Path, name: str, *, flags: str, package: str = ".") -> bool:
    """`go build` of a package in the module at `folder` to bin/<name>, unless its sources are unchanged."""
    key = source_key(module_files(folder), extra=f"{flags} {package}")
    if _is_current(paths.bin / name, key):
        return False
    _check_go(folder / "go.mod")
    say(f"building {name} with go; the first time takes several minutes, later ones seconds")
    temporary = paths.bin / f".{name}.new"
    command = ["go", "build", "-v", "-mod=readonly", "-buildvcs=false", "-trimpath"]
    command += ["-ldflags", flags, "-o", str(temporary), package]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        shown = time.monotonic()
        for compiled, line in enumerate(process.stderr, start=1):
            errors.write(line)
            if time.monotonic() - shown > PROGRESS_EVERY_SECONDS:
                shown = time.monotonic()
                say(f"           ... {compiled} packages fetched or compiled")
        if process.wait() != 0:
            errors.seek(0)
            tail = "".join(errors.readlines()[-20:])
            raise ClusterError(f"{' '.join(command)} failed in {folder}:\n{tail}")
    _put(temporary, paths.bin / name, key)
    return True


def _build_pause(paths: Paths) -> bool:
    source = SOURCES / "pause" / "pause.c"
    key = source_key([source])
    if _is_current(paths.bin / "pause", key):
        return False
    temporary = paths.bin / ".pause.new"
    command = ["gcc", "-Os", "-Wall", "-static", "-s", "-o", str(temporary), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed:\n{done.stderr}")
    _put(temporary, paths.bin / "pause", key)
    return True


def key_file(binary: Path) -> Path:
    return binary.with_name(f".{binary.name}.key")


def _is_current(binary: Path, key: str) -> bool:
    try:
        return binary.exists() and key_file(binary).read_text() == key
    except FileNotFoundError:
        return False


def _put(temporary: Path, binary: Path, key: str) -> None:
    """Rename into place: a running process keeps its old file, and a broken build never looks finished."""
    key_file(binary).unlink(missing_ok=True)
    os.replace(temporary, binary)
    key_file(binary).write_text(key)


def _check_go(module: Path) -> None:
    wanted = re.search(r"^go (\d+)\.(\d+)", module.read_text(), re.MULTILINE)
    assert wanted is not None, f"{module} names no Go version"
    need = (int(wanted[1]), int(wanted[2]))
    way_out = f"install Go {need[0]}.{need[1]} or newer and put it on the PATH"
    if shutil.which("go") is None:
        raise ClusterError(f"no `go` on the PATH; {way_out}")
    printed = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", printed)
    if found is None or (int(found[1]), int(found[2])) < need:
        raise ClusterError(f"`go version` says {printed.strip()!r}, which is too old; {way_out}")


def is_outdated(paths: Paths) -> bool:
    """Whether `build_programs` would compile something."""
    kubeall = source_key(module_files(SOURCES / "kubeall"), extra=f"{linker_flags(KUBERNETES_VERSION)} .")
    pause = source_key([SOURCES / "pause" / "pause.c"])
    return not (_is_current(paths.bin / "kubeall", kubeall) and _is_current(paths.bin / "pause", pause))
