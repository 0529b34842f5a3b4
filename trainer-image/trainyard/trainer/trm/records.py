"""Records of format TRM, split by split: problem, initial_answer, solution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.records import SPLITS
from trainyard.trainer.data.version import ensure_dataset, upload


def records_by_split(context: RunContext) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record that is used, with the split it belongs to.

    Raises:
        UserError: with every fault of every record.
    """
    built = ensure_dataset(context)
    upload(context, built)
    for split in SPLITS:
        for record, _ in built.records(split):
            yield split, record
