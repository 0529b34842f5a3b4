"""buildah with a store of our own, and what a build needs from the machine it runs on.

Builds run by chroot, without a container runtime or a network of their own. Package clients inside must reach what the
machine's own clients reach: the machine's certificate authorities and its pip and uv configuration are mounted for the
time of the build, and nothing of them stays in the image.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import system
from cluster.errors import ClusterError
from cluster.settings import PAUSE_IMAGE, REGISTRY, Paths

CERTIFICATES = Path("/etc/ssl/certs")
CLIENT_CONFIG = "/etc/xdg"
"""pip and uv both look for machine-wide settings below this folder."""

COMPRESSION = ("--compression-format", "zstd")
"""Layers are compressed once and unpacked on each node, and gzip is the slower at both."""

MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def _command(paths: Paths, *words: str) -> list[str]:
    store = ["--root", f"{paths.builder}/store", "--runroot", f"{paths.builder}/run", "--storage-driver", "overlay"]
    return ["buildah", *store, *words]


def buildah(paths: Paths, *words: str) -> str:
    """Run buildah and return what it prints."""
    return system.run(*_command(paths, *words)).strip()


def has_image(paths: Paths, image: str) -> bool:
    return system.succeeds(*_command(paths, "inspect", "--type", "image", image))


def image_id(paths: Paths, image: str) -> str:
    return buildah(paths, "inspect", "--type", "image", "--format", "{{.FromImageID}}", image)


def build(paths: Paths, *, dockerfile: Path, context: Path, image: str, arguments: Mapping[str, str]) -> None:
    """Build with layer cache; the build's own output goes to the terminal."""
    words = ["bud", "--layers", "--isolation", "chroot", "--quiet", "--tag", image, "--file", str(dockerfile)]
    for name, value in arguments.items():
        words += ["--build-arg", f"{name}={value}"]
    words += mounts(paths)
    done = subprocess.run(_command(paths, *words, str(context)), check=False)
    if done.returncode != 0:
        raise ClusterError(f"building {image} from {dockerfile} failed; the output above says why")


def push(paths: Paths, image: str) -> None:
    """Copy an image of the builder's store to the local registry under the same name."""
    buildah(paths, "push", "--quiet", "--tls-verify=false", *COMPRESSION, image)


def mounts(paths: Paths) -> list[str]:
    """buildah's words that lend a build the machine's certificates and package index settings."""
    folder = paths.builder / "clients"
    for name, text in client_settings(_pip_settings(), os.environ).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    words = ["--volume", f"{folder}:{CLIENT_CONFIG}:ro"]
    if CERTIFICATES.is_dir():
        words += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
    return words


def client_settings(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """pip.conf and uv.toml for a build, from the machine's own pip settings and uv's environment variables.

    Folders of the machine are left out: they do not exist in the build.
    """
    extra = [*pip.get("extra-index-url", "").split()]
    index = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL") or pip.get("index-url", "")
    extra_for_uv = [*environment.get("UV_EXTRA_INDEX_URL", "").split()] or extra
    links = [link for link in pip.get("find-links", "").split() if "://" in link]
    bundle = CERTIFICATES / "ca-certificates.crt"
    pip_lines = ["[global]", f"cert = {bundle}"]
    for key in ("index-url", "extra-index-url", "trusted-host", "timeout"):
        if pip.get(key):
            pip_lines.append(f"{key} = {' '.join(pip[key].split())}")
    if links:
        pip_lines.append(f"find-links = {' '.join(links)}")
    uv_lines = ["native-tls = true"]
    if index:
        uv_lines.append(f"index-url = {json.dumps(index)}")
    if extra_for_uv:
        uv_lines.append(f"extra-index-url = {json.dumps(extra_for_uv)}")
    return {"pip/pip.conf": "\n".join(pip_lines) + "\n", "uv/uv.toml": "\n".join(uv_lines) + "\n"}


def _pip_settings() -> dict[str, str]:
    """The machine's pip settings, from its files and environment; empty where there is no pip."""
    try:
        done = subprocess.run(
            ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return {}
    return parse_pip_config(done.stdout)


def parse_pip_config(printed: str) -> dict[str, str]:
    """`pip config list` prints section.key='value'; an environment variable wins over a file."""
    values: dict[str, str] = {}
    for line in printed.splitlines():
        name, equals, quoted = line.partition("=")
        section, _, key = name.partition(".")
        if not equals or section not in ("global", "install", ":env:"):
            continue
        if section == ":env:" or key not in values:
            values[key] = quoted.strip().strip("'\"").replace("\\n", " ").strip()
    return values


def registry_digest(image: str) -> str | None:
    """Digest of the image in the local registry; None if the registry does not have it or does not answer."""
    name, _, tag = image.removeprefix(f"{REGISTRY}/").rpartition(":")
    request = urllib.request.Request(
        f"http://{REGISTRY}/v2/{name}/manifests/{tag}", headers={"Accept": MANIFEST_TYPES}, method="HEAD"
    )
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            digest: str | None = answer.headers.get("Docker-Content-Digest")
            return digest
    except OSError:
        return None


def push_pause(paths: Paths) -> None:
    """The image of the container that holds a pod's namespaces: one static program and nothing else."""
    container = buildah(paths, "from", "scratch")
    try:
        buildah(paths, "copy", "--quiet", container, str(paths.bin / "pause"), "/pause")
        buildah(paths, "config", "--entrypoint", '["/pause"]', "--user", "65535:65535", container)
        buildah(paths, "commit", "--quiet", container, PAUSE_IMAGE)
    finally:
        buildah(paths, "rm", container)
    push(paths, PAUSE_IMAGE)


def remove_all(paths: Paths) -> None:
    """Empty the store: layers are mounted while in use, so buildah itself must take them away."""
    if not (paths.builder / "store").exists():
        return
    for words in (("rm", "--all"), ("rmi", "--all", "--force")):
        subprocess.run(_command(paths, *words), capture_output=True, check=False)


def run_script(words: Sequence[str], *, what: str) -> None:
    """Run a long tool quietly; its last lines in the error if it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{what} failed:\n" + "\n".join(done.stdout.splitlines()[-15:]))
