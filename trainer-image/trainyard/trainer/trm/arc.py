"""ARC tasks: pairs of coloured grids of any size up to 30 x 30, laid on a canvas of that size.

Ids: 0 padding, 1 the edge that ends a grid on the right and below, 2 and up the ten colours. A grid may lie anywhere on
the canvas, the pair at the same place. A task's forms are turned, mirrored and recoloured (black stays black), each in one
way that its row of the puzzle embedding decides, so that the row can learn what that form's rule is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainyard.trainer.errors import invalid_data
from trainyard.trainer.trm.puzzles import turn

SIDE = 30
PADDING, EDGE, BLACK = 0, 1, 2
VOCABULARY = 12
Ids = NDArray[np.int64]
Grid = NDArray[np.uint8]


def read_grid(value: Any, *, place: str) -> Grid:
    """A grid from JSON.

    Raises:
        UserError: it is no rectangle of colours 0 to 9 with at most 30 cells a side.
    """
    try:
        grid = np.array(value, dtype=np.int64)
    except (ValueError, TypeError) as error:
        raise invalid_data(f"{place}: the rows of a grid are of different length", hint="correct this task") from error
    if grid.ndim != 2 or not grid.size or max(grid.shape) > SIDE or grid.min() < 0 or grid.max() > 9:
        raise invalid_data(f"{place}: a grid has 1 to 30 rows and columns of colours 0 to 9", hint="correct this task")
    return grid.astype(np.uint8)


def lay(grid: Grid, *, top: int = 0, left: int = 0) -> Ids:
    """[cells] ids of a grid on the canvas."""
    canvas = np.zeros((SIDE, SIDE), dtype=np.int64)
    rows, columns = grid.shape
    canvas[top : top + rows, left : left + columns] = grid.astype(np.int64) + BLACK
    if top + rows < SIDE:
        canvas[top + rows, left : left + columns] = EDGE
    if left + columns < SIDE:
        canvas[top : top + rows, left + columns] = EDGE
    return canvas.ravel()


def pick_up(ids: Ids) -> Grid:
    """The grid that lies on a canvas; what is no colour inside its bounds becomes black."""
    canvas = ids.reshape(SIDE, SIDE)
    coloured = canvas >= BLACK
    if not coloured.any():
        return np.zeros((1, 1), dtype=np.uint8)
    rows, columns = (np.flatnonzero(coloured.any(axis)) for axis in (1, 0))
    part = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.maximum(part - BLACK, 0).astype(np.uint8)


def other_form(given: Ids, wanted: Ids, *, seed: int, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """The pair in the form that `seed` decides, at a place that `rng` draws. Labels below zero (padding, which nothing is
    asked about) are made anew from the grid."""
    form = np.random.default_rng([seed, 3])
    which = int(form.integers(8))
    colours = np.concatenate(([0], 1 + form.permutation(9))).astype(np.uint8)
    grids = [colours[turn(pick_up(ids), which)] for ids in (given, wanted)]
    room = SIDE - np.max([g.shape for g in grids], axis=0)
    top, left = (int(rng.integers(space + 1)) for space in room)
    first, second = (lay(g, top=top, left=left) for g in grids)
    second[second == PADDING] = -100
    return first, second
