"""Folders that are either whole or not there.

Whatever is worth keeping (prepared data, checkpoints, the model, evaluation results) is written into a temporary folder
beside its destination, flushed to disk with a manifest of every file's size and SHA-256, and then renamed. A reader
never sees half of it, whenever the process is killed; a machine that loses power, or a volume that damages a file later,
is found out by the manifest.

The order of the flushes is the point: first the files, then the folders that name them, then the rename, then the parent
folder. Without the last one the rename itself can be lost in a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
READABLE = 0o644
"""Some writers make files for their owner alone; a model is read by other pods, which may run as other users."""
TEMPORARY = ".tmp-"
"""Prefix of folders that are being written or thrown away. Nothing with it is ever read."""

Write = Callable[[Path], Mapping[str, Any] | None]
"""Fills the folder it is given; what it returns becomes entries of the manifest."""


@dataclass(frozen=True)
class Committed:
    """A committed folder and what its manifest says. `bytes` is the size of its files."""

    path: Path
    manifest: Mapping[str, Any]
    bytes: int


def commit_folder(path: Path, write: Write, **facts: Any) -> Committed:
    """Make `path` by calling `write` with a temporary folder; an older `path` is replaced.

    Args:
        path: the destination; its parent is created.
        write: fills the folder it is given; what it returns becomes entries of the manifest.
        facts: further entries of the manifest, JSON values.

    Raises:
        OSError: the volume is full or broken. Nothing is left at `path` that was not there before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        found = write(temporary)
        files: dict[str, dict[str, Any]] = {}
        for file in sorted(f for f in temporary.rglob("*") if f.is_file()):
            file.chmod(READABLE)
            files[file.relative_to(temporary).as_posix()] = {
                "size": file.stat().st_size,
                "sha256": flush_and_hash(file),
            }
        manifest = {"version": MANIFEST_VERSION, **facts, **(found or {}), "files": files}
        with open(temporary / MANIFEST, "w") as stream:
            json.dump(manifest, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        for folder in [*(f for f in temporary.rglob("*") if f.is_dir()), temporary]:
            flush_folder(folder)
        discard(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(path.parent)
    return Committed(path, manifest, sum(entry["size"] for entry in files.values()))


def read_committed(path: Path) -> Committed | None:
    """The manifest of a folder, without looking at the files; None if the folder was never committed."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        return Committed(path, manifest, sum(int(entry["size"]) for entry in manifest["files"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_made_from(path: Path, key: str | None) -> Committed | None:
    """The folder, if it is there, has the files that its manifest names, and was made from the specification of this key."""
    committed = read_committed(path)
    if committed is None or committed.manifest.get("key") != key or find_damage(committed, hashes=False) is not None:
        return None
    return committed


def find_damage(committed: Committed, *, hashes: bool = True) -> str | None:
    """Compare the files with the manifest. Returns one sentence about the first difference, or None.

    With `hashes=False` only presence and sizes are compared, which finds a torn write but not a flipped bit.
    """
    for name, entry in committed.manifest["files"].items():
        file = committed.path / name
        try:
            size = file.stat().st_size
        except OSError:
            return f"{name} is missing"
        if size != entry["size"]:
            return f"{name} has {size} bytes instead of {entry['size']}"
        if hashes and _hash(file) != entry["sha256"]:
            return f"{name} has been changed (its SHA-256 differs)"
    return None


def digest_of(folder: Committed) -> str:
    """Over names and contents of its files, and over nothing else."""
    lines = "".join(f"{entry['sha256']}  {name}\n" for name, entry in sorted(folder.manifest["files"].items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def discard(path: Path) -> None:
    """Remove a folder so that a kill half-way leaves nothing that looks committed."""
    if not path.exists():
        return
    doomed = path.parent / f"{TEMPORARY}gone-{path.name}"
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> int:
    """Delete what a killed predecessor left unfinished in `folder`. Returns how many there were."""
    leftovers = list(folder.glob(f"{TEMPORARY}*")) if folder.is_dir() else []
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return len(leftovers)


def flush_and_hash(file: Path) -> str:
    """SHA-256 of a file that is on disk for good when this returns."""
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return digest


def write_durably(path: Path, text: str) -> None:
    """Replace a small file as a whole; it is on disk for good when this returns."""
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}"  # several processes may write it
    with open(temporary, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
