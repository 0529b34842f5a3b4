"""Records of format TRM, split by split: problem, initial_answer, solution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.records import SPLITS
from trainyard.trainer.data.version import ensure_dataset, upload


@dataclass(frozen=True)
class Placed:
    """A record that is used. `fixed` if its dataset as a whole belongs to its split."""

    split: str
    fixed: bool
    record: dict[str, Any]


def placed_records(context: RunContext) -> Iterator[Placed]:
    """Every record that is used, in the order of splits and datasets.

    Raises:
        UserError: with every fault of every record.
    """
    built = ensure_dataset(context)
    upload(context, built)
    for split in SPLITS:
        for entry in built.manifest["datasets"]:
            for record, _ in built.records_of(entry, split):
                yield Placed(split, entry["role"] != "Train", record)
