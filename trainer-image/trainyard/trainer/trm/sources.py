"""Grids from wherever they are: made on the spot, or read from the published forms.

    Sudoku, Maze   generated, or CSV with the columns question and answer (a dot, zero or blank is an empty cell)
    ARC            JSON files, each one task or a mapping of tasks, with train and test pairs of grids
    Arrays         a folder of arrays, see `folder.py`; its own train and test are kept apart as they are

Everything else is divided by `split` of the dataset, group by group: equal forms of one puzzle, or all grids of one ARC
task, never stand on both sides.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainyard.api.run.dataset import Dataset
from trainyard.api.run.trm import Puzzle as PuzzleSpec
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.sources import SourceFile, fetch
from trainyard.trainer.data.split import record_hash
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.trm.folder import METADATA, Split, read_split
from trainyard.trainer.trm.puzzles import BOXES, EMPTY_CELL, MAZE_VOCABULARY, Puzzle, canonical, mazes, sudoku, turn

MAZE_SYMBOLS = "\0# SGo"
"""Published mazes: wall, free, start, goal and way, in the order of their ids."""


@dataclass(frozen=True)
class Grids:
    """Examples of one dataset with the hash of the group that each belongs to."""

    inputs: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    groups: NDArray[np.uint64]
    vocab_size: int
    task: dict[str, Any]


def read_grids(dataset: Dataset, context: RunContext, staging: Path) -> Grids:
    """Puzzles of kind Sudoku and Maze.

    Raises:
        UserError: the file does not hold such puzzles.
    """
    spec = dataset.puzzle
    assert spec is not None
    if spec.storage_uri is None:
        made = (
            sudoku(spec.size, spec.count, spec.seed)
            if spec.kind == "Sudoku"
            else mazes(spec.size, spec.count, spec.seed)
        )
    else:
        made = list(_from_csv(spec, _files(dataset, context, staging)))
    if not made:
        raise invalid_data(f"dataset {dataset.name}: there is no puzzle in it", hint="check puzzle.storageUri")
    sudokus = spec.kind == "Sudoku"
    side = int(np.sqrt(len(made[0].given)))
    return Grids(
        inputs=np.stack([p.given for p in made]),
        labels=np.stack([p.wanted for p in made]),
        groups=np.array([record_hash(p.group) for p in made], dtype=np.uint64),
        vocab_size=side + 2 if sudokus else MAZE_VOCABULARY,
        task={"kind": spec.kind, "side": side, "padding": 0},
    )


def read_arrays(dataset: Dataset, context: RunContext, staging: Path) -> dict[str, Split]:
    """A folder of arrays: its splits by our names. Its `test` is what evaluation measures.

    Raises:
        UserError: the folder is incomplete or its arrays do not fit.
    """
    files = _files(dataset, context, staging)
    roots: dict[str, Path] = {}
    for file in files:
        name = Path(file.name)
        if name.name == METADATA and name.parent.name in ("train", "test", "eval"):
            roots[name.parent.name] = _gathered(files, name.parent, staging / "arrays" / name.parent.name)
    if "train" not in roots and dataset.role == "Train":
        raise invalid_data(
            f"dataset {dataset.name}: {dataset.puzzle and dataset.puzzle.storage_uri} has no train/{METADATA}",
            hint="storageUri names the folder above train and test",
        )
    return {name: read_split(root, name=f"dataset {dataset.name}: {name}") for name, root in roots.items()}


def arc_tasks(dataset: Dataset, context: RunContext, staging: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of every ARC task, with the answers of the test pairs where a second file has them.

    Raises:
        UserError: a file is no ARC task.
    """
    tasks: dict[str, dict[str, Any]] = {}
    solutions: dict[str, list[Any]] = {}
    for file in _files(dataset, context, staging):
        if not file.name.lower().endswith(".json"):
            continue
        try:
            content = json.loads(file.path.read_text())
        except ValueError as error:
            raise invalid_data(f"{file.name}: {error}", hint="ARC tasks are JSON files") from error
        if isinstance(content, dict) and "train" in content:
            tasks[Path(file.name).stem] = content
        elif isinstance(content, dict):
            for name, value in content.items():
                if isinstance(value, dict) and "train" in value:
                    tasks[name] = value
                elif isinstance(value, list):
                    solutions[name] = value
                else:
                    raise invalid_data(f"{file.name}: {name} is no ARC task", hint="a task has train and test pairs")
        else:
            raise invalid_data(f"{file.name} is no ARC task", hint="a task is an object with train and test pairs")
    for name, task in sorted(tasks.items()):
        for pair, answer in zip(task.get("test", ()), solutions.get(name, ()), strict=False):
            pair.setdefault("output", answer)
        yield name, task


def _files(dataset: Dataset, context: RunContext, staging: Path) -> list[SourceFile]:
    """All files behind the address, whatever their names end with."""
    assert dataset.puzzle is not None
    everything = dataset.model_copy(update={"storage_uri": dataset.puzzle.storage_uri, "file_format": "Text"})
    return fetch(everything, volumes=context.volumes_dir, secrets=context.secrets_dir, staging=staging)


def _gathered(files: Iterable[SourceFile], folder: Path, staging: Path) -> Path:
    """One folder with the files that have this parent, by their own names: downloads lie under other names."""
    staging.mkdir(parents=True)
    for file in files:
        name = Path(file.name)
        if name.parent == folder:
            (staging / name.name).symlink_to(file.path.absolute())
    return staging


def _from_csv(spec: PuzzleSpec, files: list[SourceFile]) -> Iterator[Puzzle]:
    """At most `count` puzzles of the published tables."""
    left = spec.count
    for file in files:
        with open(file.path, newline="", encoding="utf-8") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                if left <= 0:
                    return
                question, answer = row.get("question"), row.get("answer")
                if question is None or answer is None:
                    raise invalid_data(
                        f"{file.name} has no columns question and answer (it has {', '.join(filter(None, row))})",
                        hint="puzzles of kind Sudoku and Maze are read from CSV with these two",
                    )
                yield _parsed(spec, question, answer, f"{file.name}:{number}")
                left -= 1


def _parsed(spec: PuzzleSpec, question: str, answer: str, place: str) -> Puzzle:
    cells = spec.size * spec.size
    if len(question) != cells or len(answer) != cells:
        raise invalid_data(
            f"{place}: question and answer have {len(question)} and {len(answer)} cells, puzzle.size {spec.size} has {cells}",
            hint="set puzzle.size to the number of cells along one side",
        )
    if spec.kind == "Maze":
        try:
            given, wanted = (
                np.array([MAZE_SYMBOLS.index(c, 1) for c in t], dtype=np.uint8) for t in (question, answer)
            )
        except ValueError as error:
            raise invalid_data(
                f"{place}: a maze is written with # (wall), blank, S, G and o (way)", hint="correct or remove this row"
            ) from error
        grid = given.reshape(spec.size, spec.size)
        return Puzzle(given, wanted, min(turn(grid, k).tobytes() for k in range(8)))
    digits = {".": 0, " ": 0} | {str(d): d for d in range(spec.size + 1)}
    try:
        clues, solution = (np.array([digits[c] for c in t], dtype=np.int64) for t in (question, answer))
    except KeyError as error:
        raise invalid_data(
            f"{place}: {error} is no cell of a Sudoku of size {spec.size}",
            hint=f"write 1 to {spec.size}, and . or 0 where nothing is given",
        ) from error
    if (solution == 0).any() or ((clues > 0) & (clues != solution)).any() or not _is_solved(solution, spec.size):
        raise invalid_data(f"{place}: the answer is no solution of the question", hint="correct or remove this row")
    return Puzzle(
        np.where(clues > 0, clues + 1, EMPTY_CELL).astype(np.uint8), (solution + 1).astype(np.uint8),
        canonical(clues, spec.size),
    )  # fmt: skip


def _is_solved(solution: NDArray[np.int64], side: int) -> bool:
    """Every row, column and box holds every digit."""
    grid = solution.reshape(side, side)
    height, width = BOXES[side]
    boxes = grid.reshape(side // height, height, side // width, width).swapaxes(1, 2).reshape(side, side)
    wanted = np.arange(1, side + 1)
    return all((np.sort(lines, axis=1) == wanted).all() for lines in (grid, grid.T, boxes))


def chosen(split: Split, keep: NDArray[np.bool_]) -> Split:
    """Some examples of a split whose examples are groups of their own."""
    count = int(keep.sum())
    starts = np.arange(count + 1, dtype=np.int32)
    return replace(
        split, inputs=split.inputs[keep], labels=split.labels[keep], puzzles=split.puzzles[keep],
        puzzle_starts=starts, group_starts=starts,
    )  # fmt: skip
