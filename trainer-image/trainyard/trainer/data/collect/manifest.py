"""A ready-built dataset: manifest.json, and the files it names, checked against it before a record is read.

The manifest is the one that Trainyard writes beside everything it commits:

    {"version": 1, "files": {"train.jsonl": {"size": 1234, "sha256": "..."}, ...}, ...}

Other entries are for those who read them. Names are relative to the manifest, with no way out of its folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainyard.api.run.collectors import ManifestSource
from trainyard.trainer.data.collect import Record, Window
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.globs import matcher
from trainyard.trainer.data.collect.journal import Journal
from trainyard.trainer.data.readers import read_rows
from trainyard.trainer.data.row import Fault
from trainyard.trainer.data.sources import SourceFile, fetch, format_of
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.log import say


class File(BaseModel):
    """What a manifest says of a file."""

    model_config = ConfigDict(extra="ignore")

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """The part of a manifest that is read here."""

    model_config = ConfigDict(extra="ignore")

    version: int = Field(ge=1, le=1)
    files: dict[str, File] = Field(min_length=1, max_length=100_000)


def collect(source: ManifestSource, access: Access, window: Window | None, journal: Journal) -> Iterator[Record]:
    """The records of the files, in the order of their names."""
    uri = source.storage_uri
    text = _get(uri, access, journal.folder / "manifest").read_bytes()
    manifest = read_manifest(text, f"{access.name}: manifest.storageUri {uri}")
    pattern = matcher(source.include) if source.include else None
    names = [
        name
        for name in sorted(manifest.files)
        if (pattern is None or pattern.fullmatch(name))
        and format_of(SourceFile(Path(name), name), "Auto") not in (None, "Text")
    ]
    if not names:
        raise invalid_data(
            f"{access.name}: {uri}: no file of the manifest can be read ({len(manifest.files)} looked at)",
            hint="known are .jsonl, .json, .csv, .tsv and .parquet; check manifest.include",
        )
    count = 0
    for name in names:
        path = _get(_beside(uri, name), access, journal.folder / "file")
        _compare(path, manifest.files[name], f"{access.name}: {_beside(uri, name)}")
        file = SourceFile(path, name)
        for row in read_rows(file, format_of(file, "Auto") or "JSONL"):
            if isinstance(row, Fault):
                raise invalid_data(f"{access.name}: {uri}: {row}", hint="build the dataset anew")
            count += 1
            yield row.value
    shutil.rmtree(journal.folder / "file", ignore_errors=True)
    say(f"{access.name}: {count} records of {len(names)} files, as the manifest says")


def read_manifest(text: bytes, place: str) -> Manifest:
    """Raises UserError with every fault of the schema."""
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise invalid_data(f"{place} is not JSON: {error}", hint="give the address of a manifest.json") from error
    try:
        manifest = Manifest.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors()[:5])
        raise invalid_data(
            f"{place} is no manifest of a dataset: {faults}",
            hint='it needs "version": 1 and "files": {name: {"size": bytes, "sha256": hex}}',
        ) from error
    for name in manifest.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name:
            raise invalid_data(f"{place}: files.{name} leads out of the manifest's folder", hint="use relative names")
    return manifest


def _get(uri: str, access: Access, staging: Path) -> Path:
    """One file as a local path; read in place on a volume, downloaded otherwise."""
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    dataset = access.dataset.model_copy(update={"storage_uri": uri, "file_format": "Auto"})
    (file,) = fetch(dataset, volumes=access.volumes, secrets=access.secrets, staging=staging)
    return file.path


def _beside(uri: str, name: str) -> str:
    """The address of a file beside the manifest. A signed address keeps its query."""
    if uri.startswith(("http://", "https://")):
        parts = urlsplit(uri)
        return urlunsplit(parts._replace(path=f"{parts.path.rpartition('/')[0]}/{name}"))
    return f"{uri.rpartition('/')[0]}/{name}"


def _compare(path: Path, told: File, place: str) -> None:
    size = path.stat().st_size
    if size != told.size:
        raise invalid_data(
            f"{place} has {size} bytes where the manifest says {told.size}", hint="build the dataset anew"
        )
    with open(path, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != told.sha256:
        raise invalid_data(
            f"{place}: SHA-256 is {found[:12]}... where the manifest says {told.sha256[:12]}...",
            hint="the file was changed after the dataset was built: build it anew",
        )
