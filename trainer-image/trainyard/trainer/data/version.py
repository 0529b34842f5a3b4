"""A dataset version: the folder `dataset/` on the run's volume, its manifest, and where else it can come from or go to.

    dataset/train/<dataset>.jsonl    records, one a line; the same for eval and test
    dataset/manifest.json            digest, counts, formats, sources, statistics, and size and SHA-256 of every file

It is built once per run and committed as a whole, before anything is tokenised, so a kill afterwards costs no second
building. With a cache volume (`spec.storage.cache`) it is also kept there under a key made of the spec and of what the
sources are now (content of files, ETags of objects). A later run that asks for the same copies it. Of the versions in a
cache those that were used last stay, because windows that end with each run make a new one every time. Where a source does
not say what it is (a web server without ETag), it is built anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.build import build_records, source_name, trained_format
from trainyard.trainer.data.identity import identity_of
from trainyard.trainer.data.records import Built
from trainyard.trainer.log import say
from trainyard.trainer.volume.commit import (
    TEMPORARY,
    commit_folder,
    discard,
    find_damage,
    read_committed,
    read_made_from,
)

KEPT = 20
"""Versions in a cache; of more, those that were not used for longest are deleted."""
LAYOUT = 2
"""Raised when the same spec and sources would give other records than before."""


def dataset_folder(context: RunContext) -> Path:
    """Where the run's dataset version lies."""
    return context.work_dir / "dataset"


def build_key(context: RunContext) -> str:
    """Digest of everything in the manifest that the records depend on."""
    basis = {
        "layout": LAYOUT,
        "datasets": [dataset.model_dump() for dataset in context.datasets],
        "formats": [trained_format(dataset, context) for dataset in context.datasets],
    }
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()


def ensure_dataset(context: RunContext) -> Built:
    """The run's dataset version: there already, from the cache, or built now.

    Raises:
        UserError: a source or a record cannot be used.
    """
    folder, key = dataset_folder(context), build_key(context)
    if (present := read_made_from(folder, key)) is not None:
        say(f"the dataset is built already: sha256 {present.manifest['digest'][:12]}")
        return Built(folder, present.manifest)
    cached = _cache_place(context, key)
    if cached is not None and _copy_cached(cached, folder):
        found = read_committed(folder)
        assert found is not None
        say(f"the dataset was taken from the cache: sha256 {found.manifest['digest'][:12]}")
        return Built(folder, found.manifest)

    def write(place: Path) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}staging-", dir=context.work_dir) as staging:
            return build_records(context, place, Path(staging))

    built = commit_folder(folder, write, key=key)
    if cached is not None:
        _keep(folder, cached)
    return Built(folder, built.manifest)


def _cache_place(context: RunContext, key: str) -> Path | None:
    """Where the cache has, or would have, this version; None without a cache or where a source cannot be told apart."""
    if context.run.spec.storage.cache is None:
        return None
    identities = []
    for dataset in context.datasets:
        identity = identity_of(dataset, context)
        if identity is None:
            say(
                f"dataset {dataset.name}: {source_name(dataset)} does not say what it holds, so it is not looked for in the cache"
            )
            return None
        identities.append(identity)
    whole = hashlib.sha256(json.dumps([key, identities]).encode()).hexdigest()
    return context.cache_dir / "datasets" / whole


def _copy_cached(cached: Path, folder: Path) -> bool:
    """Copy a cached version, checked byte by byte. False if there is none, or a damaged one."""
    found = read_committed(cached)
    if found is None:
        return False
    damage = find_damage(found)
    if damage is not None:
        say(f"the cached dataset is damaged ({damage}) and is built anew")
        shutil.rmtree(cached, ignore_errors=True)
        return False

    def write(place: Path) -> Mapping[str, Any]:
        for name in found.manifest["files"]:
            (place / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(cached / name, place / name)
        return {k: v for k, v in found.manifest.items() if k not in ("version", "files")}

    try:
        os.utime(cached)
        commit_folder(folder, write)
    except FileNotFoundError:
        return False  # another run has just deleted it as the oldest
    return True


def _keep(folder: Path, cached: Path) -> None:
    """Put a copy into the cache. Two runs may do so at once: each writes beside, the first rename wins."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    temporary = cached.parent / f"{TEMPORARY}{os.urandom(6).hex()}"
    try:
        shutil.copytree(folder, temporary)
        temporary.rename(cached)
        os.utime(cached)
        _forget_oldest(cached.parent)
    except OSError as error:
        # The cache is an extra: a full one must not fail a run whose dataset is built.
        shutil.rmtree(temporary, ignore_errors=True)
        if not cached.is_dir():
            say(f"the dataset was not put into the cache: {error.strerror or error}")


def _forget_oldest(versions: Path) -> None:
    """Delete what was not used for longest, also where other runs do the same just now."""
    used = {}
    for folder in versions.iterdir():
        if not folder.name.startswith(TEMPORARY):
            with suppress(FileNotFoundError):
                used[folder] = folder.stat().st_mtime_ns
    for folder in sorted(used, key=used.__getitem__, reverse=True)[KEPT:]:
        with suppress(FileNotFoundError):
            discard(folder)


def upload(context: RunContext, built: Built) -> None:
    """Copy the version to `spec.datasetUpload`, manifest.json last.

    Raises:
        UserError: the store refuses (65) or does not answer (69).
    """
    wanted = context.run.spec.dataset_upload
    if wanted is None:
        return
    from trainyard.trainer.data.upload import put_folder

    address = f"{wanted.storage_uri.rstrip('/')}/{built.digest}"
    put_folder(built.folder, built.manifest, address, secret_ref=wanted.secret_ref, secrets=context.secrets_dir)
