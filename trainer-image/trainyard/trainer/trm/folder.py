"""Puzzle data as a folder of arrays, in the layout that the published data sets have: read, written, memory-mapped.

    train/dataset.json                      sizes and ids
    train/all__inputs.npy                   [examples, length] ids
    train/all__labels.npy                   the same shape; the ignored id marks what does not count
    train/all__puzzle_identifiers.npy       [puzzles] row of the puzzle embedding
    train/all__puzzle_indices.npy           [puzzles + 1] where each puzzle's examples begin
    train/all__group_indices.npy            [groups + 1] where each group's puzzles begin

A group is one original problem, its puzzles are forms of it, a puzzle's examples share a rule. An epoch draws one example
of one puzzle of each group, so a problem with a thousand stored forms weighs no more than one with a single form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainyard.trainer.errors import invalid_data

METADATA = "dataset.json"
ARRAYS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")


@dataclass(frozen=True)
class Draw:
    """Some examples as the network takes them: ids [examples, length] int64, labels with -100 where nothing is asked, rows
    of the puzzle embedding [examples]."""

    inputs: NDArray[np.int64]
    labels: NDArray[np.int64]
    puzzles: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Split:
    """One split. `ignored` is the id in `labels` that does not count; None if all do."""

    inputs: NDArray[np.integer]
    labels: NDArray[np.integer]
    puzzles: NDArray[np.integer]
    puzzle_starts: NDArray[np.integer]
    group_starts: NDArray[np.integer]
    vocab_size: int
    padding: int = 0
    ignored: int | None = 0
    puzzle_rows: int = 1

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def length(self) -> int:
        """Positions of an example."""
        return int(self.inputs.shape[1])

    @property
    def groups(self) -> int:
        """Original problems."""
        return len(self.group_starts) - 1

    def puzzle_of(self, examples: NDArray[np.integer]) -> NDArray[np.int64]:
        """Row of the puzzle embedding for each of these examples."""
        which = np.searchsorted(self.puzzle_starts, examples, side="right") - 1
        return self.puzzles[which].astype(np.int64)


def flat_split(
    inputs: NDArray[np.integer], labels: NDArray[np.integer], *, vocab_size: int, ignored: int | None = 0
) -> Split:
    """A split in which every example is a group of its own and all share one puzzle embedding."""
    starts = np.arange(len(inputs) + 1, dtype=np.int32)
    return Split(inputs, labels, np.zeros(len(inputs), dtype=np.int32), starts, starts, vocab_size, ignored=ignored)


def write_split(folder: Path, split: Split) -> None:
    """Write one split into `folder`, which is made."""
    folder.mkdir(parents=True)
    arrays = (split.inputs, split.labels, split.puzzles, split.puzzle_starts, split.group_starts)
    for name, array in zip(ARRAYS, arrays, strict=True):
        np.save(folder / f"all__{name}.npy", array)
    metadata = {
        "pad_id": split.padding,
        "ignore_label_id": split.ignored,
        "blank_identifier_id": 0,
        "vocab_size": split.vocab_size,
        "seq_len": split.length,
        "num_puzzle_identifiers": split.puzzle_rows,
        "total_groups": split.groups,
        "total_puzzles": len(split.puzzles),
        "mean_puzzle_examples": len(split) / max(1, len(split.puzzles)),
        "sets": ["all"],
    }
    (folder / METADATA).write_text(json.dumps(metadata, indent=1))


def read_split(folder: Path, *, name: str) -> Split:
    """Map one split; several sets are joined.

    Raises:
        UserError: a file is missing or does not fit the others.
    """
    try:
        metadata = json.loads((folder / METADATA).read_text())
        sets = [str(one) for one in metadata["sets"]]
        loaded = [{a: np.load(folder / f"{one}__{a}.npy", mmap_mode="r") for a in ARRAYS} for one in sets]
        split = _joined(loaded, metadata)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise invalid_data(
            f"{name}: the puzzle folder cannot be read: {type(error).__name__}: {error}",
            hint=f"it needs {METADATA} and the arrays {', '.join(f'all__{a}.npy' for a in ARRAYS)}",
        ) from error
    if (fault := _fault(split)) is not None:
        raise invalid_data(f"{name}: {fault}", hint="make the folder again; every split is checked in the same way")
    return split


def _joined(sets: list[dict[str, NDArray[np.integer]]], metadata: dict[str, object]) -> Split:
    if len(sets) == 1:
        arrays = sets[0]
    else:
        arrays = {a: np.concatenate([one[a] for one in sets]) for a in ("inputs", "labels", "puzzle_identifiers")}
        arrays["puzzle_indices"] = _chained([one["puzzle_indices"] for one in sets])
        arrays["group_indices"] = _chained([one["group_indices"] for one in sets])
    ignored = metadata.get("ignore_label_id")
    return Split(
        inputs=arrays["inputs"],
        labels=arrays["labels"],
        puzzles=arrays["puzzle_identifiers"],
        puzzle_starts=arrays["puzzle_indices"],
        group_starts=arrays["group_indices"],
        vocab_size=int(str(metadata["vocab_size"])),
        padding=int(str(metadata["pad_id"])),
        ignored=None if ignored is None else int(str(ignored)),
        puzzle_rows=int(str(metadata["num_puzzle_identifiers"])),
    )


def _chained(starts: list[NDArray[np.integer]]) -> NDArray[np.integer]:
    """Beginnings of several sets as those of one."""
    joined = [starts[0]]
    for one in starts[1:]:
        joined.append(one[1:] + joined[-1][-1])
    return np.concatenate(joined)


def _fault(split: Split) -> str | None:
    """What does not fit; None if all does."""
    if split.inputs.ndim != 2 or split.inputs.shape != split.labels.shape:
        return f"inputs {split.inputs.shape} and labels {split.labels.shape} must be two equal tables"
    if not len(split) or not split.groups:
        return "there are no examples"
    for name, starts, end in (
        ("puzzle_indices", split.puzzle_starts, len(split)),
        ("group_indices", split.group_starts, len(split.puzzles)),
    ):
        if starts[0] != 0 or starts[-1] != end or (np.diff(starts) < 1).any():
            return f"{name} must rise from 0 to {end}, the number of what it divides"
    if len(split.puzzles) != len(split.puzzle_starts) - 1:
        return f"{len(split.puzzles)} puzzle_identifiers for {len(split.puzzle_starts) - 1} puzzles"
    if int(split.inputs.min()) < 0 or int(split.inputs.max()) >= split.vocab_size:
        return f"inputs hold ids outside 0..{split.vocab_size - 1} (vocab_size {split.vocab_size})"
    if int(split.puzzles.max()) >= split.puzzle_rows:
        return f"puzzle_identifiers reach {int(split.puzzles.max())}, num_puzzle_identifiers is {split.puzzle_rows}"
    asked = np.asarray(split.labels)
    asked = asked[asked != split.ignored] if split.ignored is not None else asked
    if not asked.size:
        return "no label counts: all of them are ignore_label_id"
    asked = asked[asked != -100]
    if asked.size and (int(asked.min()) < 0 or int(asked.max()) >= split.vocab_size):
        return f"labels hold ids outside 0..{split.vocab_size - 1} (vocab_size {split.vocab_size})"
    return None
