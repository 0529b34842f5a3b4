"""Other forms of the same examples, made while training instead of stored.

A Sudoku stays one when its digits are renamed, its bands and lines change places, or it is mirrored; a maze when it is
turned; a text about machines when the machines get other names. Each draw makes new forms from a seed and a position
alone, so the data of step 70 000 can be made again without making that of the steps before.

All functions leave alone what is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainyard.trainer.trm.arc import other_form
from trainyard.trainer.trm.folder import Draw
from trainyard.trainer.trm.puzzles import BOXES, line_orders, turn

Ids = NDArray[np.int64]
Augment = Callable[[Draw, np.random.Generator], Draw]


def augmentation(task: Mapping[str, Any]) -> Augment | None:
    """What belongs to a task, as it stands in the manifest of the prepared data; None if there is nothing to vary."""
    match task["kind"]:
        case "Sudoku":
            return sudoku_forms(int(task["side"]))
        case "Maze":
            return turned_forms(int(task["side"]))
        case "Text":
            ranges = [(int(first), int(last)) for first, last in task["entities"]]
            return renamed_entities(ranges, int(task["vocabSize"])) if ranges else None
        case "ARC":
            return arc_forms(int(task["forms"]))
    return None


def sudoku_forms(side: int) -> Augment:
    """Digits renamed, bands and lines exchanged; mirrored too where boxes are square."""
    rows, columns = line_orders(side)
    square = BOXES[side][0] == BOXES[side][1]

    def apply(draw: Draw, rng: np.random.Generator) -> Draw:
        count = len(draw)
        row = rows[rng.integers(len(rows), size=count)]
        column = columns[rng.integers(len(columns), size=count)]
        cells = row[:, :, None] * side + column[:, None, :]
        if square:
            mirrored = rng.integers(2, size=count).astype(bool)
            cells[mirrored] = cells[mirrored].swapaxes(1, 2)
        cells = cells.reshape(count, -1)
        names = np.tile(np.arange(side + 2), (count, 1))
        names[:, 2:] = rng.permuted(names[:, 2:], axis=1)
        inputs, labels = (_renamed(np.take_along_axis(a, cells, 1), names) for a in (draw.inputs, draw.labels))
        return replace(draw, inputs=inputs, labels=labels)

    return apply


def turned_forms(side: int) -> Augment:
    """The eight turned and mirrored forms of a square."""
    where = np.stack([turn(np.arange(side * side).reshape(side, side), k).ravel() for k in range(8)])

    def apply(draw: Draw, rng: np.random.Generator) -> Draw:
        cells = where[rng.integers(8, size=len(draw))]
        inputs, labels = (np.take_along_axis(a, cells, 1) for a in (draw.inputs, draw.labels))
        return replace(draw, inputs=inputs, labels=labels)

    return apply


def arc_forms(forms: int) -> Augment:
    """Each ARC task in `forms` fixed forms, each with a row of the puzzle embedding of its own: the one that a draw names
    is that of the task's first form, which is the task itself."""

    def apply(draw: Draw, rng: np.random.Generator) -> Draw:
        rows = draw.puzzles + rng.integers(forms, size=len(draw))
        inputs, labels = draw.inputs.copy(), draw.labels.copy()
        for place, (first, row) in enumerate(zip(draw.puzzles, rows, strict=True)):
            if row != first:
                inputs[place], labels[place] = other_form(inputs[place], labels[place], seed=int(row), rng=rng)
        return Draw(inputs, labels, rows)

    return apply


def renamed_entities(ranges: list[tuple[int, int]], vocab_size: int) -> Augment:
    """Placeholders change names within their kind: host 1 becomes host 3 in the problem and in the solution.

    Args:
        ranges: first id and the one after the last, for each kind of placeholder.
    """

    def apply(draw: Draw, rng: np.random.Generator) -> Draw:
        names = np.tile(np.arange(vocab_size), (len(draw), 1))
        for first, last in ranges:
            names[:, first:last] = rng.permuted(names[:, first:last], axis=1)
        return replace(draw, inputs=_renamed(draw.inputs, names), labels=_renamed(draw.labels, names))

    return apply


def _renamed(ids: Ids, names: Ids) -> Ids:
    """names[example, id], with negative ids (which do not count) as they are."""
    return np.where(ids < 0, ids, np.take_along_axis(names, np.maximum(ids, 0), 1))
