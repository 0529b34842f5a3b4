"""What a trace store says of a dataset that it has built: in its answer to a build, and in its manifest.json.

Both have the same names. What is noted here goes with the dataset version into the run's status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainyard.trainer.data.collect.journal import Journal

NOTE = "built"
NAMES = {"dataset_key": "key", "build_id": "build_id", "trace_count": "trace_count", "manifest_path": "manifest_path"}
"""The store's names, and those of the records that the operator reads."""


def note(told: Mapping[str, Any], journal: Journal) -> None:
    """Keep what it says in these names; anything but texts and whole numbers is passed over."""
    journal.note(
        NOTE,
        {
            ours: value
            for theirs, ours in NAMES.items()
            if isinstance(value := told.get(theirs), str | int) and not isinstance(value, bool)
        },
    )


def noted(folder: Path) -> dict[str, Any] | None:
    """What was kept in the folder of a source's journal; None if nothing was."""
    try:
        found: dict[str, Any] = json.loads((folder / f"{NOTE}.json").read_text())
    except FileNotFoundError:
        return None
    return found
