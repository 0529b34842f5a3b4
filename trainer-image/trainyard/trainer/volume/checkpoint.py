"""Checkpoints: where they lie, which one to go on from, which ones to let go.

    <work>/checkpoints/step-00000500/   model or adapter, optimizer, scheduler, RNGs, trainer state, manifest.json

A checkpoint is a committed folder (see `commit.py`), so it is whole or absent. Resuming reads the newest one back file by
file; if it is damaged, it says so and walks back to the one before. If there are checkpoints but none is whole, the run
fails and names them: starting again from zero over somebody's week of work is never the right answer to a bad disk.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trainyard.trainer.errors import invalid_config, storage
from trainyard.trainer.log import say, warn
from trainyard.trainer.reporter import SavedCheckpoint
from trainyard.trainer.volume.claims import Bounds
from trainyard.trainer.volume.commit import (
    Committed,
    Write,
    commit_folder,
    discard,
    find_damage,
    read_committed,
    remove_leftovers,
)

TIME = "%Y-%m-%dT%H:%M:%SZ"
"""RFC 3339 in UTC; compares as text as it does as time."""
_NAME = re.compile(r"^step-(\d{8,})$")


@dataclass(frozen=True)
class Checkpoint:
    """One committed checkpoint."""

    step: int
    path: Path
    time: str
    bytes: int
    best_step: int | None = None
    """Step of the best evaluation so far, where the best checkpoint is kept."""

    def record(self, volume: Path) -> SavedCheckpoint:
        """For progress and final records; the path is relative to the volume."""
        return SavedCheckpoint(
            step=self.step, path=str(self.path.relative_to(volume)), time=self.time, bytes=self.bytes
        )


def save(root: Path, step: int, write: Write, **facts: Any) -> Checkpoint:
    """Commit a checkpoint of `step`. One that is already there and whole is kept as it is."""
    path = root / f"step-{step:08d}"
    present = read_committed(path)
    if present is not None and find_damage(present, hashes=False) is None:
        return _checkpoint(present, step)
    started = time.monotonic()
    stamp = datetime.now(UTC).strftime(TIME)
    checkpoint = _checkpoint(commit_folder(path, write, step=step, time=stamp, **facts), step)
    say(f"checkpoint at step {step}: {checkpoint.bytes / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
    return checkpoint


def prune(root: Path, keep_last: int, *, max_age_days: float | None = None) -> list[int]:
    """Delete all but the newest `keep_last`, and of these those that are too old. The newest stays whatever its age, and so
    does the one that the newest calls the best. Returns the steps of those that went."""
    present = listed(root)
    gone = present[keep_last:]
    if max_age_days is not None:
        oldest = (datetime.now(UTC) - timedelta(days=max_age_days)).strftime(TIME)
        gone += [checkpoint for checkpoint in present[1:keep_last] if checkpoint.time < oldest]
    gone = [checkpoint for checkpoint in gone if checkpoint.step != present[0].best_step]
    for checkpoint in gone:
        discard(checkpoint.path)
    return [checkpoint.step for checkpoint in gone]


def listed(root: Path) -> list[Checkpoint]:
    """Committed checkpoints, newest first, not verified."""
    found = [_checkpoint(c, step) for step, path in _folders(root) if (c := read_committed(path)) is not None]
    return sorted(found, key=lambda c: c.step, reverse=True)


def newest_step(root: Path) -> int | None:
    """Step of the newest checkpoint, not verified; None if there is none."""
    return max((step for step, _ in _folders(root)), default=None)


def newest_valid(root: Path) -> Checkpoint | None:
    """The checkpoint to go on from, every file verified; None if there never was one.

    Raises:
        UserError: there are checkpoints, but each of them is damaged.
    """
    remove_leftovers(root)
    damaged = []
    for step, path in sorted(_folders(root), reverse=True):
        committed = read_committed(path)
        damage = "its manifest.json cannot be read" if committed is None else find_damage(committed)
        if committed is not None and damage is None:
            return _checkpoint(committed, step)
        damaged.append(f"{path.name}: {damage}")
        warn(f"checkpoint {path.name} is damaged and passed over: {damage}")
    if damaged:
        raise storage(
            f"none of the {len(damaged)} checkpoints in {root} is whole ({'; '.join(damaged)})",
            hint="check the volume; to start over deliberately, delete that folder",
        )
    return None


def find_other(reference: str, *, volume: Path, own: Path, inside: str = "") -> Checkpoint:
    """`spec.checkpoints.resumeFrom`: another run's name, or a path on the same volume.

    A name means the newest folder `<name>-<uid>` on the volume. A path may lead to one checkpoint, to a folder of
    checkpoints, or to a run's folder. `inside` is where in a run's folder the checkpoints are looked for (of a phase).

    Raises:
        UserError: nothing is there, or what is there is damaged.
    """
    told, place, roots = _places(reference, volume=volume, own=own, inside=inside)
    if place.is_dir() and _NAME.match(place.name):
        committed = read_committed(_on_volume(volume, told, place, "**/*"))
        damage = "its manifest.json cannot be read" if committed is None else find_damage(committed)
        if committed is None or damage is not None:
            raise storage(f"{told} is damaged: {damage}")
        return _checkpoint(committed, int(place.name.removeprefix("step-")))
    for root in roots:
        if (checkpoint := newest_valid(_on_volume(volume, told, root, "step-*", "step-*/**/*"))) is not None:
            return checkpoint
    others = sorted(f.name for f in volume.iterdir() if (f / "checkpoints").is_dir() and f != own)
    raise invalid_config(
        f"{told}: no checkpoint of such a run on this volume",
        hint=f"runs with checkpoints here: {', '.join(others) or 'none'}; both runs need the same "
        "spec.storage.checkpoints.claimName",
    )


def seek_other(reference: str, *, volume: Path, own: Path, inside: str = "") -> Checkpoint | None:
    """What `find_other` will find if it is whole, by its manifest alone; None where nothing is there yet.

    Raises:
        UserError: it leaves the volume.
    """
    told, place, roots = _places(reference, volume=volume, own=own, inside=inside)
    if place.is_dir() and _NAME.match(place.name):
        committed = read_committed(_on_volume(volume, told, place, "manifest.json"))
        return _checkpoint(committed, int(place.name.removeprefix("step-"))) if committed else None
    found = (listed(_on_volume(volume, told, root, "step-*", "step-*/manifest.json")) for root in roots)
    return next((checkpoints[0] for checkpoints in found if checkpoints), None)


def _places(reference: str, *, volume: Path, own: Path, inside: str) -> tuple[str, Path, list[Path]]:
    """How the reference is called in messages, where it leads as a path, and the folders of checkpoints that it may mean."""
    relative = Path(reference.lstrip("/"))
    if ".." in relative.parts:
        raise invalid_config(
            f"spec.checkpoints.resumeFrom {reference!r} leaves the volume", hint="give a path without .."
        )
    place = volume / relative
    pattern = re.compile(re.escape(reference) + r"-[0-9a-f]{1,8}$|" + re.escape(reference) + r"-local$")
    runs = [f for f in volume.iterdir() if f.is_dir() and f != own and pattern.fullmatch(f.name)]
    newest_first = sorted(runs, key=lambda f: f.stat().st_mtime, reverse=True)
    roots = [place, place / "checkpoints", *(folder / inside / "checkpoints" for folder in (place, *newest_first))]
    return f"spec.checkpoints.resumeFrom {reference!r}", place, [r for r in roots if r.is_dir() and r != volume]


def _on_volume(volume: Path, told: str, folder: Path, *patterns: str) -> Path:
    """The folder, if what is read in it lies on this volume and not where a link leads."""
    files = (folder, *(path for pattern in patterns for path in folder.glob(pattern)))
    Bounds(volume, "the checkpoint volume").check(files, told=told, invalid=invalid_config)
    return folder


def _folders(root: Path) -> list[tuple[int, Path]]:
    if not root.is_dir():
        return []
    return [(int(m[1]), path) for path in root.iterdir() if (m := _NAME.match(path.name)) and path.is_dir()]


def _checkpoint(committed: Committed, step: int) -> Checkpoint:
    best = committed.manifest.get("best") or {}
    return Checkpoint(step, committed.path, str(committed.manifest.get("time", "")), committed.bytes, best.get("step"))
