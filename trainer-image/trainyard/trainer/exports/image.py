"""A model as an image without a system: its files below /models, in layers that are the same wherever they are made. Pure.

    large files    a layer each: what another version shares, or an interrupted upload has brought over, is not sent again
    all others     one layer
    an index       the same layers for each architecture, because a runtime refuses an image of another one

Owners, modes and times are fixed, so the digest says what is in it and nothing else. Weights hardly shrink, so layers are not
compressed: they need no temporary file, and are read twice instead.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.trainer.exports.package import Package, PackedFile

FOLDER = "models"
LARGE = 16 << 20
MOST_LAYERS = 100
"""Runtimes stack no more than 127."""
ARCHITECTURES = ("amd64", "arm64")
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
FILE_PATH = "org.cncf.model.filepath"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Blob:
    """Something that a registry keeps by its digest."""

    kind: str
    digest: str
    size: int
    content: bytes | None = None
    """None for a layer, which is read from its files."""
    files: tuple[PackedFile, ...] = ()

    def open(self) -> io.BufferedIOBase:
        """To be read once."""
        if self.content is not None:
            return io.BytesIO(self.content)
        return io.BufferedReader(_Stream(_pieces(self.files)), BLOCK)

    @property
    def descriptor(self) -> dict[str, Any]:
        """How others refer to it."""
        told: dict[str, Any] = {"mediaType": self.kind, "digest": self.digest, "size": self.size}
        if len(self.files) == 1:
            told["annotations"] = {FILE_PATH: self.files[0].name}
        return told


@dataclass(frozen=True)
class Image:
    """Blobs and manifests in the order in which they are sent; the index comes last and is the image."""

    blobs: tuple[Blob, ...]
    manifests: tuple[Blob, ...]
    index: Blob


def image_of(package: Package, annotations: Mapping[str, str]) -> Image:
    """Reads all files once, for the digests."""
    layers = [layer(files) for files in _layered(package.files)]
    configs, manifests, entries = [], [], []
    for architecture in ARCHITECTURES:
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": dict(annotations)},
            "rootfs": {"type": "layers", "diff_ids": [one.digest for one in layers]},
        }
        configs.append(document(CONFIG, config))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": configs[-1].descriptor,
            "layers": [one.descriptor for one in layers],
            "annotations": dict(annotations),
        }
        manifests.append(document(MANIFEST, manifest))
        platform = {"os": "linux", "architecture": architecture}
        entries.append(manifests[-1].descriptor | {"platform": platform})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, "annotations": dict(annotations)}
    return Image((*layers, *configs), tuple(manifests), document(INDEX, index))


def document(kind: str, value: Mapping[str, Any]) -> Blob:
    """A JSON document as a blob."""
    content = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return Blob(kind, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), content)


def layer(files: Sequence[PackedFile]) -> Blob:
    """These files as an archive. Reads them."""
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(files):
        digest.update(piece)
        size += len(piece)
    return Blob(LAYER, f"sha256:{digest.hexdigest()}", size, files=tuple(files))


def _layered(files: Sequence[PackedFile]) -> list[list[PackedFile]]:
    large = sorted((f for f in files if f.size >= LARGE), key=lambda f: -f.size)[:MOST_LAYERS]
    names = {file.name for file in large}
    small = [file for file in files if file.name not in names]
    return ([small] if small else []) + [[file] for file in sorted(large, key=lambda f: f.name)]


def _pieces(files: Sequence[PackedFile]) -> Iterator[bytes]:
    folders = {FOLDER}
    for file in files:
        parts = file.name.split("/")[:-1]
        folders |= {"/".join((FOLDER, *parts[: n + 1])) for n in range(len(parts))}
    for folder in sorted(folders):
        yield _header(f"{folder}/", 0, 0o755, tarfile.DIRTYPE)
    for file in sorted(files, key=lambda f: f.name):
        yield _header(f"{FOLDER}/{file.name}", file.size, 0o644, tarfile.REGTYPE)
        left = file.size
        with file.path.open("rb") as stream:
            while left and (block := stream.read(min(BLOCK, left))):
                left -= len(block)
                yield block
        if left:
            raise OSError(f"{file.name} has lost {left} bytes while it was read")
        yield bytes(-file.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int, mode: int, kind: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.type, entry.mtime = size, mode, kind, 0
    return entry.tobuf(tarfile.PAX_FORMAT)


class _Stream(io.RawIOBase):
    """An iterator of bytes, to be read as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = next(self._pieces)
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
