"""What building a dataset version works with: the faults found, a dataset while it is read, the version on disk."""

from __future__ import annotations

import json
import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.duplicates import Signatures
from trainyard.trainer.data.messages import Record
from trainyard.trainer.data.row import Fault, Row
from trainyard.trainer.data.split import record_hash, repetitions
from trainyard.trainer.data.tags import read_tags, tags_file, tags_of
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.log import say

SPLITS = ("train", "eval", "test")
FAULTS_LISTED = 20
FIX = "correct or remove these records; the log lists the first twenty"
LINE_BITS = 40
"""Of a place; the other 24 are for the number of the file."""


@dataclass
class Faults:
    """What is wrong with the data: the first few in full, all of them counted."""

    listed: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, fault: Fault) -> None:
        """Count it, and keep it if it is among the first."""
        self.count += 1
        if len(self.listed) < FAULTS_LISTED:
            self.listed.append(fault)

    def raise_if_any(self, total: int, *, hint: str = FIX) -> None:
        """End the step with all faults at once, so that a file is corrected in one go."""
        if not self.count:
            return
        for fault in self.listed:
            say(f"  {fault}")
        if self.count > len(self.listed):
            say(f"  and {self.count - len(self.listed)} more")
        more = f"; and {self.count - 3} more" if self.count > 3 else ""
        raise invalid_data(
            f"{self.count} of {total} records cannot be used: {'; '.join(map(str, self.listed[:3]))}{more}",
            hint=hint,
        )


@dataclass
class Part:
    """One dataset while it is being built. The lists have an entry per spooled record."""

    dataset: Dataset
    format: str
    spool: Path
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    groups: array[int] = field(default_factory=lambda: array("Q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    tasks: dict[str, array[int]] = field(default_factory=dict)
    """For generated examples: the records of each task."""
    sources: dict[str, int] = field(default_factory=dict)
    """Files, or what else records come from, in the order in which they were met."""
    places: array[int] = field(default_factory=lambda: array("Q"))
    """Where each record stood: number of the source, and line."""
    tags: dict[str, int] = field(default_factory=dict)
    """What records say about themselves (see `tags.py`), each wording once,"""
    tag_of: array[int] = field(default_factory=lambda: array("Q"))
    """and which of them is each record's."""
    keep: bytearray = field(default_factory=bytearray)
    signatures: Signatures | None = None
    counts: Counter[str] = field(default_factory=Counter)
    built: dict[str, Any] = field(default_factory=dict)
    """Under `built`, what a trace store says of a dataset that it has built; empty for others."""

    def note_place(self, row: Row) -> None:
        """Remember where the record that comes next into the spool stood."""
        source = self.sources.setdefault(row.source, len(self.sources))
        self.places.append(source << LINE_BITS | row.line)

    def note_tags(self, row: Row) -> None:
        """Remember what the record that comes next into the spool says about itself."""
        self.tag_of.append(self.tags.setdefault(json.dumps(tags_of(row.value)), len(self.tags)))

    @property
    def held_out(self) -> bool:
        """Whether all of it is for evaluation or test."""
        return self.dataset.role != "Train"


@dataclass(frozen=True)
class Built:
    """A dataset version on disk."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256 over the records and how they are used."""
        return str(self.manifest["digest"])

    def records(self, split: str) -> Iterator[tuple[Record, int]]:
        """The records of a split in order, each with the number of times an epoch sees it."""
        for entry in self.manifest["datasets"]:
            yield from self.records_of(entry, split)

    def records_of(self, entry: Mapping[str, Any], split: str) -> Iterator[tuple[Record, int]]:
        """The same of one dataset, by its entry in the manifest."""
        for _, line, repeat in self._lines_of(entry, split):
            yield json.loads(line), repeat

    def tags(self, split: str) -> Iterator[dict[str, str]]:
        """What each of these records says about itself; without metadata.source its dataset stands for that."""
        for entry in self.manifest["datasets"]:
            tags = read_tags(self.folder / tags_file(split, entry["name"]))
            for number, _, _ in self._lines_of(entry, split):
                yield {"source": entry["name"], **(tags[number] if number < len(tags) else {})}

    def place_of(self, split: str, number: int, places: Path) -> str:
        """Where a record stood that `records` gives as the one of this number, as `write_places` has noted it. Without such
        notes, as of a version from the cache, by its dataset."""
        for entry in self.manifest["datasets"]:
            for line, _, _ in self._lines_of(entry, split):
                if number == 0:
                    found = _noted(places / f"{split}-{entry['name']}", self.digest, line)
                    return found or f"dataset {entry['name']}, {split} record {line + 1}"
                number -= 1
        raise IndexError(f"{split} has no such record")

    def _lines_of(self, entry: Mapping[str, Any], split: str) -> Iterator[tuple[int, bytes, int]]:
        """Number of the line, the line, and how often it is seen; without those that are not."""
        path = self.folder / split / f"{entry['name']}.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as stream:
            for number, line in enumerate(stream):
                repeat = repetitions(entry["weight"], record_hash(line[:-1])) if split == "train" else 1
                if repeat:
                    yield number, line, repeat


def notes_of_places(context: RunContext) -> Path:
    """The folder for notes of where records stood, while data is prepared."""
    return context.run_dir / "places" / (context.phase or "run")


def write_places(file: Path, digest: str, sources: Iterable[str], places: array[int]) -> None:
    """Where the records of one split and dataset stood: a line of JSON with the version's digest and the sources, then 8 bytes
    a record. It is no part of the version, which is the same wherever its records came from."""
    with open(file, "wb") as stream:
        stream.write(json.dumps([digest, *sources]).encode() + b"\n")
        places.tofile(stream)


def _noted(file: Path, digest: str, number: int) -> str | None:
    try:
        with open(file, "rb") as stream:
            known, *sources = json.loads(stream.readline())
            stream.seek(8 * number, os.SEEK_CUR)
            place = int.from_bytes(stream.read(8), sys.byteorder)
    except (FileNotFoundError, ValueError):
        return None
    return f"{sources[place >> LINE_BITS]}:{place & (1 << LINE_BITS) - 1}" if known == digest else None
