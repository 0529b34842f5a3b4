"""A ready-built dataset: manifest.json, and the files it names, checked against it before a record is read.

The manifest is the one that Trainyard writes beside everything it commits:

    {"version": 1, "files": {"train.jsonl": {"size": 1234, "sha256": "..."}, ...}, ...}

Other entries are for those who read them. Names are relative to the manifest, with no way out of its folder.

A trace store writes one of another kind, which counts traces and names no files:

    {"dataset_key": "demo-v1", "dataset_name": "demo", "dataset_version": "v1", "trace_count": 1000, ...}

Its records are what the store has exported, laid beside it: `export.jsonl`, or the file of the dataset's name.
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

from trainyard.api.addresses import told
from trainyard.api.conditions import Reason
from trainyard.api.run.collectors import ManifestSource
from trainyard.trainer.data.collect import Record, Window, built_elsewhere
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.globs import matcher
from trainyard.trainer.data.collect.journal import Journal
from trainyard.trainer.data.readers import read_rows
from trainyard.trainer.data.row import Fault
from trainyard.trainer.data.sources import SourceFile, fetch, format_of
from trainyard.trainer.errors import UserError, invalid_data
from trainyard.trainer.log import say

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
EXPORT = "export.jsonl"
"""As the store's own address of an export ends."""
PASSED_OVER = ("TrainingExample", "TunixSFT")
"""Formats in which a store writes no record of a trace that lacks what they need."""


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


class StoreManifest(BaseModel):
    """The same of a trace store's manifest. What may be missing is what older stores do not write."""

    model_config = ConfigDict(extra="ignore")

    dataset_key: str = Field(max_length=253, pattern=NAME)
    dataset_name: str | None = Field(None, max_length=253, pattern=NAME)
    dataset_version: str | None = Field(None, max_length=253, pattern=NAME)
    build_id: str | None = Field(None, max_length=253)
    trace_count: int = Field(ge=1)

    @property
    def files(self) -> list[str]:
        """What an export may be called that lies beside it, likeliest first."""
        names = [EXPORT, f"{self.dataset_key}.jsonl"]
        if self.dataset_name and self.dataset_version:
            names.append(f"{self.dataset_name}_{self.dataset_version}.jsonl")
        return names


def collect(source: ManifestSource, access: Access, window: Window | None, journal: Journal) -> Iterator[Record]:
    """The records of the files, in the order of their names."""
    uri = source.storage_uri
    text = _get(uri, access, journal.folder / "manifest").read_bytes()
    manifest = read_manifest(text, f"{access.name}: manifest.storageUri {uri}")
    if isinstance(manifest, StoreManifest):
        yield from _exported(manifest, source, access, journal)
        return
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


def _exported(manifest: StoreManifest, source: ManifestSource, access: Access, journal: Journal) -> Iterator[Record]:
    """The records of a store's export that lies beside its manifest, counted."""
    uri, promised, count = source.storage_uri, manifest.trace_count, 0
    found = manifest.model_dump() | {"manifest_path": told(uri)}
    built_elsewhere.note(found, journal)
    for path in _exports(manifest, source, access, journal.folder / "file"):
        for row in read_rows(SourceFile(path, path.name), "JSONL"):
            if isinstance(row, Fault):
                raise invalid_data(f"{access.name}: {uri}: {row}", hint="export the dataset again")
            count += 1
            yield row.value
    shutil.rmtree(journal.folder / "file", ignore_errors=True)
    if count > promised or (count < promised and access.dataset.format not in PASSED_OVER):
        raise invalid_data(
            f"{access.name}: manifest.storageUri {uri}: trace_count is {promised}, and the export beside it has {count} records",
            hint="export the dataset again, from the same building",
        )
    left = f"; {promised - count} of its traces have no record of this format" if count < promised else ""
    say(f"{access.name}: {count} records of dataset {manifest.dataset_key}, as trace_count says{left}")


def _exports(manifest: StoreManifest, source: ManifestSource, access: Access, staging: Path) -> Iterator[Path]:
    """The files that include names, or the first one that an export is usually called."""
    uri, here = source.storage_uri, f"{access.name}: manifest.storageUri {source.storage_uri}"
    for name in source.include:
        if set(name) & set("*?[") or not _is_inside(name):
            raise invalid_data(
                f"{access.name}: manifest.include {name}: a manifest with dataset_key names no files that a pattern could choose",
                hint="write the name of a file beside the manifest, for example export.jsonl",
            )
        yield _get(_beside(uri, name), access, staging)
    if source.include:
        return
    for name in manifest.files:
        try:
            path = _get(_beside(uri, name), access, staging)
        except UserError as error:
            if not _is_absence(error):
                raise
            continue
        yield path
        return
    raise invalid_data(
        f"{here}: the export of dataset {manifest.dataset_key} does not lie beside it; looked for were {', '.join(manifest.files)}",
        hint=f"save /api/datasets/{manifest.dataset_key}/export.jsonl of the store as export.jsonl there, or name the file in "
        "manifest.include",
    )


def _is_absence(error: UserError) -> bool:
    return error.reason is Reason.INVALID_DATA and ("does not exist" in error.message or "HTTP 404" in error.message)


def _is_inside(name: str) -> bool:
    return bool(name) and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def read_manifest(text: bytes, place: str) -> Manifest | StoreManifest:
    """Raises UserError with every fault of the schema."""
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise invalid_data(f"{place} is not JSON: {error}", hint="give the address of a manifest.json") from error
    kind = StoreManifest if isinstance(value, dict) and "dataset_key" in value and "files" not in value else Manifest
    try:
        manifest = kind.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors()[:5])
        raise invalid_data(
            f"{place} is no manifest of a dataset: {faults}",
            hint='it needs "version": 1 and "files": {name: {"size": bytes, "sha256": hex}}, or dataset_key and trace_count',
        ) from error
    for name in manifest.files:
        if not _is_inside(name):
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
