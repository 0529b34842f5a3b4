"""The operating system's packages that the cluster needs, installed when a tool is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from cluster.errors import ClusterError
from cluster.timing import say

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
POLICY = Path("/usr/sbin/policy-rc.d")

TOOLS = {
    "containerd": ("containerd",),
    "runc": ("runc",),
    "buildah": ("buildah",),
    "docker-registry": ("docker-registry",),
    "debootstrap": ("debootstrap",),
    "nft": ("nftables",),
    "ip": ("iproute2",),
    "conntrack": ("conntrack",),
    "gcc": ("gcc", "libc6-dev"),
    "openssl": ("openssl",),
    "nsenter": ("util-linux",),
    "mount": ("mount",),
}
"""Tool on the PATH -> the Debian packages that bring it."""


def cni_folder() -> Path | None:
    """Where the network plugins are."""
    return next((folder for folder in CNI_FOLDERS if (folder / "ptp").exists()), None)


def missing_packages(has_tool: Callable[[str], bool], *, has_cni: bool) -> list[str]:
    """Packages to install, given which tools are there."""
    wanted = [package for tool, packages in TOOLS.items() if not has_tool(tool) for package in packages]
    return wanted if has_cni else [*wanted, "containernetworking-plugins"]


def find_tool(tool: str) -> bool:
    """Like `which`, but looks in the sbin folders too: a user's PATH often lacks them."""
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def needed() -> list[str]:
    return missing_packages(find_tool, has_cni=cni_folder() is not None)


def install(packages: Iterable[str]) -> None:
    """Install with apt, with a policy that keeps the packages' own daemons from starting."""
    wanted = list(packages)
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"these are missing and there is no apt-get to install them: {', '.join(wanted)}; install them by hand"
        )
    if os.geteuid() != 0:
        raise ClusterError(f"installing {', '.join(wanted)} needs root; run as root or install them first")
    say(f"installing packages: {' '.join(wanted)}")
    own_policy = not POLICY.exists()
    if own_policy:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted]
        if _apt(["apt-get", "update", "-q"]) != 0:
            say("apt-get update failed; trying with the lists that are there")
        if _apt(command) != 0:
            raise ClusterError(f"this failed, run it by hand to see why: {' '.join(command)}")
    finally:
        if own_policy:
            POLICY.unlink(missing_ok=True)


def _apt(command: list[str]) -> int:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say(done.stderr.strip() or done.stdout[-2000:])
    return done.returncode
