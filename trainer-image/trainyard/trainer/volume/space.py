"""Is there room on the volume for what the training will leave? Asked before the first step, not answered by the tenth save.

A checkpoint of a full training takes the weights once and the optimizer's state about twice more, and one more of them than
are kept is there while the newest is being written.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from trainyard.trainer.errors import STORAGE_HINT, storage
from trainyard.trainer.log import say

OTHER_FILES = 64 * 1024
"""Bytes of a checkpoint's small files: configuration, counters, random numbers."""


@dataclass(frozen=True)
class Need:
    """Bytes that the run will have on its volume at most."""

    checkpoint: int
    checkpoints: int
    """How many lie there at a time."""
    result: int

    @property
    def total(self) -> int:
        """In all."""
        return self.checkpoint * self.checkpoints + self.result


def needed(*, saved: int, optimizer: int, result: int, saves: int, keep_last: int, keeps_best: bool) -> Need:
    """What the run needs.

    Args:
        saved: bytes of the weights that a checkpoint holds (all, or an adapter's).
        optimizer: bytes of its state.
        result: bytes of what is exported at the end.
        saves: how often the training will save at all.
        keep_last: of which so many are kept, and the best besides them, if it is kept.
    """
    at_a_time = min(saves, keep_last + 1 + keeps_best)
    return Need(saved + optimizer + OTHER_FILES, at_a_time, result)


def check(need: Need, folder: Path) -> None:
    """Compare with what is free, and with what is there already and will be replaced.

    Raises:
        UserError: it cannot fit.
    """
    free = shutil.disk_usage(folder).free
    there = _size(folder / "checkpoints") + _size(folder / "model") + _size(folder / "adapter")
    say(
        f"storage: {need.checkpoints} checkpoints of about {mb(need.checkpoint)} at a time and a result of {mb(need.result)} "
        f"need {mb(need.total)}; {mb(free)} are free" + (f" and {mb(there)} in use by this run" if there else "")
    )
    if need.total > free + there:
        raise storage(
            f"the volume has {mb(free + there)} for this run and the training needs {mb(need.total)}: {need.checkpoints} "
            f"checkpoints of about {mb(need.checkpoint)} at a time and a result of {mb(need.result)}",
            hint=STORAGE_HINT,
        )


def mb(size: int) -> str:
    """For people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e10 else f"{size / 1e6:.1f} MB"


def _size(folder: Path) -> int:
    return sum(os.lstat(file).st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
