"""What building a dataset version works with: the faults found, a dataset while it is read, the version on disk."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.duplicates import Signatures
from trainyard.trainer.data.messages import Record
from trainyard.trainer.data.readers import Fault
from trainyard.trainer.data.split import record_hash, repetitions
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.log import say

SPLITS = ("train", "eval", "test")
FAULTS_LISTED = 20


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

    def raise_if_any(self, total: int) -> None:
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
            hint="correct or remove these records; the log lists the first twenty",
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
    keep: bytearray = field(default_factory=bytearray)
    signatures: Signatures | None = None
    counts: Counter[str] = field(default_factory=Counter)

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
        path = self.folder / split / f"{entry['name']}.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as stream:
            for line in stream:
                repeat = repetitions(entry["weight"], record_hash(line[:-1])) if split == "train" else 1
                if repeat:
                    yield json.loads(line), repeat
