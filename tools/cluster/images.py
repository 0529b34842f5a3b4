"""The project's images: base, operator, trainer, built only when what goes into them changed, and put on every node.

The key of an image covers its Dockerfile, every file that the Dockerfile copies from the repository, the build
arguments and the key of its base. With the key unchanged and the image in the registry, nothing is built.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cluster import builder, distribution, nodes, processes
from cluster.errors import ClusterError
from cluster.lock import only_one
from cluster.settings import BASE_IMAGE, NODES, REGISTRY, REPOSITORY, Node, Paths
from cluster.timing import Timings, say

NOT_HASHED = ("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".git")


@dataclass(frozen=True)
class Image:
    """An image of the project. The build context is always the repository's root."""

    name: str
    dockerfile: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return f"{REGISTRY}/trainyard/{self.name}:dev"


IMAGES = (
    Image("operator", "operator/Dockerfile"),
    Image("trainer", "trainer-image/Dockerfile", {"TORCH": "cpu", "SIMULATED_GPU": "1"}),
)


def chosen(names: Iterable[str]) -> list[Image]:
    """The images with these names; all if none is named."""
    wanted = list(names)
    unknown = [name for name in wanted if name not in {image.name for image in IMAGES}]
    if unknown:
        raise ClusterError(f"no image {unknown[0]!r}; there are: {', '.join(image.name for image in IMAGES)}")
    return [image for image in IMAGES if not wanted or image.name in wanted]


def build_images(paths: Paths, names: Iterable[str]) -> None:
    """Build what changed, push it to the registry and pull it on every node."""
    with only_one(paths, "images"):
        _build_images(paths, names)


def _build_images(paths: Paths, names: Iterable[str]) -> None:
    timings = Timings("images")
    base, base_key = distribution.base_image(paths, timings)
    for image in chosen(names):
        dockerfile = REPOSITORY / image.dockerfile
        if not dockerfile.exists():
            raise ClusterError(f"{image.dockerfile} does not exist; the {image.name} image cannot be built")
        arguments = {"BASE": base, **image.arguments}
        key = image_key(REPOSITORY, dockerfile, arguments, base_key)
        if not _is_built(paths, image.reference, key):
            with timings.part(f"build {image.name}"):
                builder.build(
                    paths, dockerfile=dockerfile, context=REPOSITORY, image=image.reference, arguments=arguments
                )
            with timings.part(f"push {image.name}"):
                builder.push(paths, image.reference)
            _note_built(paths, image.reference, key)
        pull_everywhere(paths, image.reference, timings)
    timings.save(paths.timings)
    say(f"images are on every node after {timings.total:.1f} s")


def provide_base(paths: Paths) -> str:
    """Put the base image itself on every node, as something small that pods can run; its name."""
    with only_one(paths, "images"):
        timings = Timings("base")
        base, _ = distribution.base_image(paths, timings)
        if base == BASE_IMAGE and builder.registry_digest(base) is None:
            with timings.part("push base"):
                builder.push(paths, base)
        if base == BASE_IMAGE:
            pull_everywhere(paths, base, timings)
        return base


def load(paths: Paths, reference: str) -> None:
    """Put an image of the local builder's store on every node, by way of the registry."""
    if not builder.has_image(paths, reference):
        raise ClusterError(
            f"the builder has no image {reference!r}; build it with "
            f"`buildah --root {paths.builder}/store --runroot {paths.builder}/run --storage-driver overlay bud -t ...`"
        )
    target = in_registry(reference)
    if target != reference:
        builder.buildah(paths, "tag", reference, target)
    timings = Timings("load")
    with timings.part(f"push {target}"):
        builder.push(paths, target)
    pull_everywhere(paths, target, timings)
    say(f"pods can use {target}")


def in_registry(reference: str) -> str:
    """The name under which the local registry holds an image."""
    return f"{REGISTRY}/{path_in_registry(reference)}"


def path_in_registry(reference: str) -> str:
    """An image's name without the host of a registry, and with a tag."""
    name = reference
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        name = rest
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def pull_everywhere(paths: Paths, reference: str, timings: Timings) -> None:
    """Pull on all nodes at once where the node's copy is not the registry's."""
    digest = builder.registry_digest(reference)
    if digest is None:
        raise ClusterError(f"the registry has no {reference}; is the cluster up?")
    stale = [node for node in NODES if node_digest(paths, node, reference) != digest]
    if not stale:
        return
    what = f"pull {reference.rpartition('/')[2]} on {', '.join(n.name for n in stale)}"
    with timings.part(what), ThreadPoolExecutor(len(stale)) as pool:
        list(pool.map(lambda node: _pull(paths, node, reference), stale))


def _pull(paths: Paths, node: Node, reference: str) -> None:
    """Pull, then forget what the tag named before: each build would otherwise stay on every node for ever."""
    nodes.ctr(paths, node, "images", "pull", reference)
    old = untagged_references(nodes.ctr(paths, node, "images", "list"))
    if old:
        nodes.ctr(paths, node, "images", "remove", *old)


def untagged_references(listing: str) -> list[str]:
    """Names by digest, in what `ctr images list` prints, whose image no tag names any more."""
    rows = [line.split() for line in listing.splitlines()[1:]]
    images = {row[0]: row[2] for row in rows if len(row) > 2}
    by_digest = {name for name in images if name.startswith("sha256:") or "@" in name}
    tagged = {digest for name, digest in images.items() if name not in by_digest}
    return sorted(name for name in by_digest if images[name] not in tagged)


def node_digest(paths: Paths, node: Node, reference: str) -> str | None:
    """Digest of the node's copy of the image; None if it has none."""
    if processes.running(paths, f"containerd-{node.name}") is None:
        raise ClusterError(f"node {node.name} is not up; run `python3 tools/cluster up` first")
    return digest_in_list(nodes.ctr(paths, node, "images", "list", f"name=={reference}"), reference)


def digest_in_list(listing: str, reference: str) -> str | None:
    """Find the image in what `ctr images list` prints: REF TYPE DIGEST ..."""
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[0] == reference:
            return fields[2]
    return None


def image_key(context: Path, dockerfile: Path, arguments: Mapping[str, str], base_key: str) -> str:
    """Changes exactly when something that goes into the image changes."""
    text = dockerfile.read_text()
    digest = hashlib.sha256(json.dumps([text, dict(sorted(arguments.items())), base_key]).encode())
    for source in copied_sources(text):
        matches = sorted(context.glob(source)) if source not in ("", ".") else [context]
        if not matches:
            raise ClusterError(f"{dockerfile}: COPY {source}: nothing of that name in {context}")
        for path in matches:
            for file in files_below(path):
                digest.update(f"\0{file.relative_to(context)}\0{file.stat().st_mode & 0o111}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def copied_sources(dockerfile: str) -> list[str]:
    """Paths, relative to the build context, that COPY and ADD lines of a Dockerfile read."""
    found = []
    joined = dockerfile.replace("\\\n", " ")
    for line in joined.splitlines():
        words = shlex.split(line, comments=True) if line.strip().upper().startswith(("COPY ", "ADD ")) else []
        flags = [word for word in words[1:] if word.startswith("--")]
        if not words or any(flag.startswith("--from=") for flag in flags):
            continue
        places = [word for word in words[1:] if not word.startswith("--")]
        found += [place.strip("/").removeprefix("./") for place in places[:-1] if "://" not in place]
    return found


def files_below(path: Path) -> list[Path]:
    """The regular files at or below a path, sorted, without caches."""
    if path.is_file():
        return [path]
    files = (file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return sorted(file for file in files if not set(file.relative_to(path).parts) & set(NOT_HASHED))


def _notes(paths: Paths) -> Path:
    return paths.builder / "built.json"


def _read_notes(paths: Paths) -> dict[str, str]:
    try:
        notes: dict[str, str] = json.loads(_notes(paths).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return notes


def _is_built(paths: Paths, reference: str, key: str) -> bool:
    return _read_notes(paths).get(reference) == key and builder.registry_digest(reference) is not None


def _note_built(paths: Paths, reference: str, key: str) -> None:
    notes = _read_notes(paths)
    notes[reference] = key
    _notes(paths).write_text(json.dumps(notes, indent=1))
