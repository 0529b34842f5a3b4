"""Where a model lies, as a folder of safetensors, whatever the address is: that of `spec.model`, or of a champion.

    hf://org/name[@revision]                 the snapshot in the hub's cache (origin.py)
    pvc://claim/path  file:///path           where it is
    run://name[/phase]                       that run's result, on the same checkpoint volume
    s3://bucket/prefix  https://...          fetched once (remote.py)
    any of them that ends in .gguf           unpacked once (gguf.py)

What is fetched or unpacked is a committed folder, named by a digest of what it was made from: in the cache, where later runs
find it too, or without one in the run's own folder. What an address stood for is written down in the run's folder when it is
first looked at, in the prepare step: later steps and attempts ask nobody, and go on with the same weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.api.addresses import told
from trainyard.api.base import SecretRef
from trainyard.api.names import PHASES_DIR
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.sources import secret_values
from trainyard.trainer.errors import UserError, invalid_config
from trainyard.trainer.log import say
from trainyard.trainer.volume import remote
from trainyard.trainer.volume.claims import Bounds, bounds_of, folder_of
from trainyard.trainer.volume.commit import (
    TEMPORARY,
    Write,
    commit_folder,
    discard,
    find_damage,
    flush_folder,
    read_committed,
    write_durably,
)
from trainyard.trainer.volume.gguf import check_gguf, digest_of, unpack
from trainyard.trainer.volume.origin import from_hub, hub_token, local_folder

FOLDER = "bases"
LAYOUT = 1
"""Raised when the same source would give other files."""
GGUF = ".gguf"
MODEL = "spec.model"
ABANDONED = 24 * 3600
"""Seconds after which an unfinished folder in the cache is nobody's."""


@dataclass(frozen=True)
class Address:
    """An address, and where it stands in the spec, for messages."""

    uri: str
    secret_ref: SecretRef | None
    field: str = MODEL

    @property
    def told(self) -> str:
        return f"{self.field}.storageUri {self.uri}"

    @property
    def secret(self) -> str:
        return f"{self.field}.secretRef"


@dataclass(frozen=True)
class _Source:
    """What an address stands for now: whatever is the same for the same bytes, and how to make the folder."""

    identity: tuple[str, ...]
    write: Write


def is_made(uri: str) -> bool:
    """Whether the folder behind an address has to be made first."""
    return uri.startswith(("s3://", "http://", "https://")) or uri.endswith(GGUF)


def base_folder(context: RunContext, *, weights: bool = True) -> Path:
    """The folder behind `spec.model.storageUri`; of one on a hub, with `weights=False`, only what a tokenizer needs.

    Raises:
        UserError: there is none, access is refused, nobody answers, or it cannot be unpacked.
    """
    uri = context.model.storage_uri
    assert uri is not None
    return model_folder(Address(uri, context.model.secret_ref), context, weights=weights)


def model_folder(address: Address, context: RunContext, *, weights: bool = True) -> Path:
    """The same for any address of a model.

    Raises:
        UserError: there is none, access is refused, nobody answers, or it cannot be unpacked.
    """
    uri = address.uri
    if uri.startswith("run://"):
        return _result_of(address, context)
    if not is_made(uri):
        return local_folder(uri, context=context, secret_ref=address.secret_ref, weights=weights)
    note = context.run_dir / FOLDER / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}.json"
    stamp = _stamp(address, context)
    if (place := _settled(note, context, stamp)) is not None:
        return place
    source = _source(address, context)
    key = hashlib.sha256(json.dumps([LAYOUT, *source.identity]).encode()).hexdigest()[:32]
    root, where = _root(context)
    place = root / key
    if not _is_whole(place):
        _store(place, source.write, uri=told(uri), revision=_revision(source.identity))
    else:
        say(f"{uri}: already here, in {place}")
    note.parent.mkdir(parents=True, exist_ok=True)
    write_durably(note, json.dumps({"uri": told(uri), "in": where, "folder": key, "stamp": stamp}))
    return place


def _root(context: RunContext) -> tuple[Path, str]:
    """Where made folders are kept: in the cache if it outlives the step, else in the run's folder."""
    if context.run.spec.storage.cache is not None:
        return context.cache_dir / FOLDER, "cache"
    return context.run_dir / FOLDER, "run"


def _settled(note: Path, context: RunContext, stamp: str) -> Path | None:
    try:
        known = json.loads(note.read_text())
        root = context.cache_dir if known["in"] == "cache" else context.run_dir
        place = root / FOLDER / str(known["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return place if known.get("stamp") == stamp and _is_whole(place) else None


def _is_whole(place: Path) -> bool:
    committed = read_committed(place)
    return committed is not None and find_damage(committed, hashes=False) is None


def _revision(identity: tuple[str, ...]) -> str:
    """Short, for people and for provenance."""
    return identity[-1] if len(identity[-1]) <= 71 else f"sha256:{hashlib.sha256(identity[-1].encode()).hexdigest()}"


def _store(place: Path, write: Write, **facts: Any) -> None:
    """Make the folder beside its place. Whoever makes the same one at the same time does no harm: one of the two stays."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.glob(f"{TEMPORARY}*"):
        if time.time() - old.stat().st_mtime > ABANDONED:
            shutil.rmtree(old, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place.parent))
    try:
        started = time.monotonic()
        made = commit_folder(temporary / "base", write, **facts)
        if not _is_whole(place):
            discard(place)
        try:
            made.path.rename(place)
        except OSError:
            if not _is_whole(place):
                raise
        flush_folder(place.parent)
        say(f"base model: {made.bytes / 1e6:.1f} MB in {place} after {time.monotonic() - started:.1f} s")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# ---- what an address stands for


def _stamp(address: Address, context: RunContext) -> str:
    """Changes when a file on a claim or in the image is replaced by another."""
    if not address.uri.startswith(("pvc://", "file://")):
        return ""
    about = _file_of(address, context).stat()
    return f"{about.st_size} {about.st_mtime_ns}"


def _source(address: Address, context: RunContext) -> _Source:
    uri = address.uri
    scheme = uri.partition("://")[0]
    if uri.endswith(GGUF) and scheme in ("pvc", "file"):
        file = _file_of(address, context)
        check_gguf(file, uri)
        return _Source((f"sha256:{digest_of(file)}",), lambda folder: unpack(file, folder, uri))
    if scheme == "hf":
        found = _file_from_hub(address, context)
        check_gguf(found, uri)
        return _Source((f"sha256:{digest_of(found)}",), lambda folder: unpack(found, folder, uri))
    listed = look(address, context)
    if uri.endswith(GGUF):
        return _Source((told(uri), listed.identity or context.uid), lambda folder: _unpack_remote(listed, folder, uri))
    return _Source((told(uri), listed.identity or context.uid), listed.fetch)


def look(address: Address, context: RunContext) -> remote.Listed:
    """What a bucket or a web server has there.

    Raises:
        UserError: nothing is there, access is refused, or nobody answers.
    """
    secret = secret_values(address.secret_ref, context.secrets_dir, told=address.secret)
    return remote.look(address.uri, secret)


def _unpack_remote(listed: remote.Listed, folder: Path, uri: str) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}gguf-", dir=folder.parent) as place:
        listed.fetch(Path(place))
        (file,) = Path(place).iterdir()
        return {**unpack(file, folder, uri), "sha256": digest_of(file)}


def _file_of(address: Address, context: RunContext) -> Path:
    """The file behind a pvc:// or file:// address."""
    uri, told_uri = address.uri, address.told
    parent, _, name = uri.rpartition("/")
    if uri.startswith("pvc://") and parent == "pvc:/":
        raise invalid_config(f"{told_uri} names a claim and no file on it", hint="give pvc://claim/path/file.gguf")
    folder = folder_of(f"{parent}/", context.volumes_dir, told=told_uri, invalid=invalid_config)
    file = folder / name
    if (bounds := bounds_of(uri, context.volumes_dir)) is not None:
        bounds.check([file], told=told_uri, invalid=invalid_config)
    if not file.is_file():
        near = ", ".join(sorted(f.name for f in folder.iterdir())[:8])
        raise invalid_config(f"{told_uri} is not a file", hint=f"{folder} has: {near}" if near else "check the path")
    return file


def _file_from_hub(address: Address, context: RunContext) -> Path:
    """hf://org/name[@revision]/path.gguf; the revision is one part of the address, or refs/... of three."""
    uri = address.uri
    owner, name, *rest = uri.removeprefix("hf://").split("/")
    name, _, revision = name.partition("@")
    if revision == "refs":
        revision, rest = "/".join((revision, *rest[:2])), rest[2:]
    path = "/".join(rest)
    token = hub_token(context.secrets_dir, address.secret_ref, field=address.secret)
    folder = from_hub(f"{owner}/{name}", revision or None, uri, token, wanted=[path], field=address.secret)
    if not (folder / path).is_file():
        raise invalid_config(f"{uri}: {owner}/{name} has no file {path!r}", hint="check the path after the name")
    return folder / path


def _result_of(address: Address, context: RunContext) -> Path:
    """The model that another run has left on this volume; which of several of one name is settled once."""
    uri = address.uri
    name, _, phase = uri.removeprefix("run://").partition("/")
    note = context.run_dir / FOLDER / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}.json"
    try:
        folder = context.volume / str(json.loads(note.read_text())["folder"])
        if _is_whole(folder):
            return folder
    except (OSError, ValueError, KeyError, TypeError):
        pass
    inside = Path(PHASES_DIR) / phase / "model" if phase else Path("model")
    runs = [
        run
        for run in (context.volume / name, *context.volume.glob(f"{name}-*"))
        if run != context.run_dir and _is_folder_of(run.name, name) and run.is_dir()
    ]
    whole = [run / inside for run in runs if _is_whole(run / inside)]
    if not whole:
        raise _no_result(address, name, context, runs)
    found = max(whole, key=lambda folder: folder.stat().st_mtime)
    files = (found, *(path for path in found.rglob("*") if path.is_symlink()))
    Bounds(context.volume, "the checkpoint volume").check(files, told=address.told, invalid=invalid_config)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_durably(note, json.dumps({"uri": uri, "folder": found.relative_to(context.volume).as_posix()}))
    say(f"{uri}: {found.relative_to(context.volume)}")
    return found


def _is_folder_of(folder: str, run: str) -> bool:
    rest = folder.removeprefix(run).removeprefix("-")
    return folder == run or rest == "local" or (0 < len(rest) <= 8 and set(rest) <= set("0123456789abcdef"))


def _no_result(address: Address, name: str, context: RunContext, runs: list[Path]) -> UserError:
    if any((run / "adapter").is_dir() for run in runs):
        return invalid_config(
            f"{address.told}: run {name} has left an adapter and no model",
            hint="run it again with spec.model.adapter.merge: true, which is quick: its training is complete",
        )
    others = sorted(run.name for run in context.volume.iterdir() if (run / "model").is_dir() and run != context.run_dir)
    return invalid_config(
        f"{address.told}: no result of such a run on this volume",
        hint=f"runs with a model here: {', '.join(others[:20]) or 'none'}; both runs need the same "
        "spec.storage.checkpoints.claimName",
    )
