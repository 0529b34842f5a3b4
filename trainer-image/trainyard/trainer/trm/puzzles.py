"""Puzzles made on the spot: Sudoku of three sizes, and mazes. They need no download, and there is always enough of them.

Ids follow the published data sets, so that models and files can be exchanged: a Sudoku cell is 0 for padding, 1 for an
empty cell and digit + 1 otherwise; a maze cell is 1 wall, 2 free, 3 start, 4 goal, 5 on the shortest way.

Every Sudoku has exactly one solution. Puzzles that differ only by renamed digits, exchanged rows of a band or the like are
the same puzzle, and carry the same `group`: training and evaluation never share one. For 9x9 the group is only the puzzle
itself, since three million equal forms of each are too many to compare; two random ones are practically never equal.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainyard.trainer.errors import invalid_config

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Rows and columns of a box, by the side of the grid."""
MOST_SMALL = {4: 1000}
"""Different puzzles that are made of a small side; there are not many more."""
EMPTY_CELL = 1
WALL, FREE, START, GOAL, WAY = 1, 2, 3, 4, 5
MAZE_VOCABULARY = 6
Ids = NDArray[np.uint8]
G = TypeVar("G", bound=np.generic)


@dataclass(frozen=True)
class Puzzle:
    """One puzzle: what is given, what is wanted, and the bytes by which it is grouped."""

    given: Ids
    wanted: Ids
    group: bytes


def sudoku(side: int, count: int, seed: int) -> list[Puzzle]:
    """`count` different puzzles of `side` x `side` cells, each with as few clues as its order of trying allows.

    Raises:
        UserError: there are not that many different ones.
    """
    if count > MOST_SMALL.get(side, count):
        raise invalid_config(
            f"{count} Sudokus of {side} x {side} that differ by more than names and order are too many to find",
            hint=f"lower puzzle.count to {MOST_SMALL[side]}; renamed and exchanged forms are made while training",
        )
    rng = np.random.default_rng([seed, side])
    found: dict[bytes, Puzzle] = {}
    while len(found) < count:
        grid = _solved_grid(side, rng)
        # Some keep clues above the minimum, so that puzzles differ in difficulty as those of people do.
        clues = _thin_out(grid, side, rng, spare=int(rng.integers(0, side + 1)))
        puzzle = Puzzle(
            given=np.where(clues > 0, clues + 1, EMPTY_CELL).astype(np.uint8),
            wanted=(grid + 1).astype(np.uint8),
            group=canonical(clues, side),
        )
        found.setdefault(puzzle.group, puzzle)
    return list(found.values())


def mazes(side: int, count: int, seed: int) -> list[Puzzle]:
    """`count` mazes of `side` x `side` cells with one shortest way each, walls included."""
    rng = np.random.default_rng([seed, side, 1])
    found: dict[bytes, Puzzle] = {}
    while len(found) < count:
        walls = _carve(side, rng)
        free = np.flatnonzero(walls == FREE)
        start = int(rng.choice(free))
        distance, origin = _distances(walls, side, start)
        goal = int(np.argmax(distance))
        given = walls.copy()
        given[start], given[goal] = START, GOAL
        wanted = given.copy()
        at = origin[goal]
        while at != start:
            wanted[at] = WAY
            at = origin[at]
        forms = [turn(given.reshape(side, side), k).tobytes() for k in range(8)]
        found.setdefault(min(forms), Puzzle(given.astype(np.uint8), wanted.astype(np.uint8), min(forms)))
    return list(found.values())


def turn(grid: NDArray[G], which: int) -> NDArray[G]:
    """One of the eight turned and mirrored forms of a square; 0 is the square itself."""
    turned = np.rot90(grid, which % 4, axes=(-2, -1))
    return np.ascontiguousarray(turned.swapaxes(-2, -1) if which >= 4 else turned)


def solve(clues: NDArray[np.int64], side: int, *, limit: int, rng: np.random.Generator | None = None) -> list[Ids]:
    """Up to `limit` solutions, by trying the cell with the fewest candidates first.

    Args:
        clues: [cells] digits, 0 for empty.
        side: 4, 6 or 9.
        limit: stop after so many.
        rng: order of trying; None means ascending.
    """
    units = _units(side)
    rows, columns, boxes = [0] * side, [0] * side, [0] * side
    grid = [int(c) for c in clues]
    for cell, digit in enumerate(grid):
        if digit:
            r, c, b = units[cell]
            bit = 1 << digit
            if (rows[r] | columns[c] | boxes[b]) & bit:
                return []
            rows[r] |= bit
            columns[c] |= bit
            boxes[b] |= bit
    every = sum(1 << d for d in range(1, side + 1))
    solutions: list[Ids] = []

    def search() -> bool:
        best, options = -1, 0
        fewest = side + 1
        for cell, digit in enumerate(grid):
            if digit:
                continue
            r, c, b = units[cell]
            free = every & ~(rows[r] | columns[c] | boxes[b])
            if (count := free.bit_count()) < fewest:
                best, options, fewest = cell, free, count
                if count <= 1:
                    break
        if best < 0:
            solutions.append(np.array(grid, dtype=np.uint8))
            return len(solutions) >= limit
        digits = [d for d in range(1, side + 1) if options >> d & 1]
        if rng is not None and len(digits) > 1:
            rng.shuffle(digits)
        r, c, b = units[best]
        for digit in digits:
            bit = 1 << digit
            grid[best] = digit
            rows[r] |= bit
            columns[c] |= bit
            boxes[b] |= bit
            done = search()
            rows[r] &= ~bit
            columns[c] &= ~bit
            boxes[b] &= ~bit
            grid[best] = 0
            if done:
                return True
        return False

    search()
    return solutions


def canonical(clues: NDArray[np.int64], side: int) -> bytes:
    """The smallest of all equal forms, as bytes; equal for equal puzzles. For side 9 the puzzle's own bytes."""
    if side == 9:
        return clues.astype(np.uint8).tobytes()
    forms = clues[_symmetries(side)]
    # Digits are renamed in the order they come up, which makes all renamings of one form equal.
    seen = np.zeros((len(forms), side + 1), dtype=np.uint8)
    renamed = np.zeros_like(forms, dtype=np.uint8)
    following = np.ones(len(forms), dtype=np.uint8)
    lines = np.arange(len(forms))
    for cell in range(side * side):
        digit = forms[:, cell]
        new = (digit > 0) & (seen[lines, digit] == 0)
        seen[lines[new], digit[new]] = following[new]
        following[new] += 1
        renamed[:, cell] = seen[lines, digit]
    return bytes(min(line.tobytes() for line in renamed))


@functools.cache
def line_orders(side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All orders of rows, and of columns, that keep a grid valid: bands change places, and lines within a band."""
    height, width = BOXES[side]
    return _orders(side, height), _orders(side, width)


def _orders(side: int, size: int) -> NDArray[np.int64]:
    inner = list(itertools.permutations(range(size)))
    found = []
    for bands in itertools.permutations(range(side // size)):
        for lines in itertools.product(inner, repeat=side // size):
            found.append([band * size + line for band, order in zip(bands, lines, strict=True) for line in order])
    return np.array(found, dtype=np.int64)


@functools.cache
def _symmetries(side: int) -> NDArray[np.int64]:
    """[forms, cells]: where each cell of a form comes from."""
    rows, columns = line_orders(side)
    cells = (rows[:, None, :, None] * side + columns[None, :, None, :]).reshape(-1, side, side)
    if BOXES[side][0] == BOXES[side][1]:
        cells = np.concatenate((cells, cells.swapaxes(1, 2)))
    return cells.reshape(len(cells), -1)


@functools.cache
def _units(side: int) -> list[tuple[int, int, int]]:
    height, width = BOXES[side]
    across = side // width
    return [(r, c, r // height * across + c // width) for r in range(side) for c in range(side)]


def _solved_grid(side: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return solve(np.zeros(side * side, dtype=np.int64), side, limit=1, rng=rng)[0].astype(np.int64)


def _thin_out(grid: NDArray[np.int64], side: int, rng: np.random.Generator, *, spare: int) -> NDArray[np.int64]:
    """Take clues away in random order while the solution stays the only one; then give `spare` of them back."""
    clues = grid.copy()
    taken = []
    for cell in rng.permutation(side * side):
        digit = clues[cell]
        clues[cell] = 0
        if len(solve(clues, side, limit=2)) > 1:
            clues[cell] = digit
        else:
            taken.append(cell)
    back = taken[len(taken) - spare :]
    clues[back] = grid[back]
    return clues


def _carve(side: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Walls of a maze by a walk that goes back where it is stuck."""
    walls = np.full((side, side), WALL, dtype=np.int64)
    at = (1, 1)
    walls[at] = FREE
    stack = [at]
    while stack:
        r, c = stack[-1]
        ways = [
            (dr, dc)
            for dr, dc in ((0, 2), (2, 0), (0, -2), (-2, 0))
            if 0 < r + dr < side - 1 and 0 < c + dc < side - 1 and walls[r + dr, c + dc] == WALL
        ]
        if not ways:
            stack.pop()
            continue
        dr, dc = ways[int(rng.integers(len(ways)))]
        walls[r + dr // 2, c + dc // 2] = walls[r + dr, c + dc] = FREE
        stack.append((r + dr, c + dc))
    return walls.ravel()


def _distances(walls: NDArray[np.int64], side: int, start: int) -> tuple[NDArray[np.int64], dict[int, int]]:
    distance = np.full(walls.shape, -1, dtype=np.int64)
    distance[start] = 0
    origin: dict[int, int] = {}
    queue = deque([start])
    while queue:
        at = queue.popleft()
        for following in (at - side, at + side, at - 1, at + 1):
            if walls[following] == FREE and distance[following] < 0:
                distance[following] = distance[at] + 1
                origin[following] = at
                queue.append(following)
    return distance, origin
