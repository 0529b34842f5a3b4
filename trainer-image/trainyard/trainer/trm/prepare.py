"""The prepare step of a Tiny Recursive Model: every source becomes a folder of arrays in the published layout.

data/train, data/eval, data/test    arrays, see `folder.py`
data/task.json                      what the ids mean
data/tokenizer/                     for texts
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import note_dataset
from trainyard.trainer.data.records import SPLITS
from trainyard.trainer.data.split import assign
from trainyard.trainer.errors import invalid_config, invalid_data
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.trm import arc
from trainyard.trainer.trm.folder import Split, flat_split, write_split
from trainyard.trainer.trm.sources import arc_tasks, read_arrays, read_grids
from trainyard.trainer.trm.task import TASK_FILE, check_task, settings
from trainyard.trainer.trm.textdata import text_splits
from trainyard.trainer.volume.commit import Committed, commit_folder, read_made_from, remove_leftovers

LAYOUT = 1
"""Raised when the files of prepared data change their meaning."""


def prepare(context: RunContext, reporter: Reporter) -> Committed:
    """Make `context.data_dir`, or find that it is there.

    Raises:
        UserError: a source is missing, damaged, or does not fit the task.
    """
    reporter.report(phase="prepare", percentage=0.0)
    remove_leftovers(context.work_dir)
    key = specification_key(context)
    if (present := read_made_from(context.data_dir, key)) is not None:
        say("the prepared data is complete and made from this specification: nothing to do")
        return finish(present, reporter)
    started = time.monotonic()
    made = commit_folder(context.data_dir, lambda folder: build(context, folder), key=key)
    say(f"prepared {made.bytes / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
    return finish(made, reporter)


def finish(made: Committed, reporter: Reporter) -> Committed:
    """Put the data into the final record."""
    note_dataset(made, reporter)
    reporter.report(percentage=100.0, milestone=True)
    return made


def specification_key(context: RunContext) -> str:
    """Digest of everything in the manifest that the prepared data depends on."""
    trm = settings(context)
    basis = {
        "layout": LAYOUT,
        "datasets": [dataset.model_dump() for dataset in context.datasets],
        "task": [trm.task, trm.experimental],
        "maxLength": context.training.max_length,
    }
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()


def build(context: RunContext, folder: Path) -> dict[str, Any]:
    """Fill `folder`. Returns the facts for its manifest."""
    staging = folder / "staging"
    staging.mkdir()
    kinds = {d.puzzle.kind if d.puzzle else "Text" for d in context.datasets}
    if len(kinds) > 1:
        raise invalid_config(
            f"spec.datasets mixes {', '.join(sorted(kinds))}: one network learns one kind of task",
            hint="keep datasets of one kind in this run",
        )
    (kind,) = kinds
    match kind:
        case "Text":
            splits, task = text_splits(context, folder)
        case "ARC":
            splits, task = _arc(context, staging)
        case "Arrays":
            splits, task = _arrays(context, staging)
        case _:
            splits, task = _grids(context, staging)
    check_task(context, task)
    if "train" not in splits:
        raise invalid_data("nothing is left to train on", hint="lower split.eval and split.test, or give more puzzles")
    sizes = {name: (split.length, split.vocab_size) for name, split in splits.items()}
    if len(set(sizes.values())) > 1:
        raise invalid_data(
            "the splits differ in length or vocabulary: " + ", ".join(f"{n} {v}" for n, v in sizes.items()),
            hint="make them with the same tool",
        )
    digest = hashlib.sha256()
    counts = {name: {"records": 0, "sequences": 0, "tokens": 0} for name in SPLITS}
    for name, split in splits.items():
        write_split(folder / name, split)
        for array in (split.inputs, split.labels, split.group_starts):
            digest.update(np.ascontiguousarray(array).tobytes())
        counts[name] = {"records": len(split), "sequences": len(split), "tokens": 0}
        say(f"{name}: {len(split)} examples of {split.length} positions in {split.groups} groups")
    shutil.rmtree(staging)
    train = splits["train"]
    task |= {"length": train.length, "vocabSize": train.vocab_size}
    (folder / TASK_FILE).write_text(json.dumps(task, indent=1))
    return {
        "digest": digest.hexdigest(),
        "splits": counts,
        "datasets": [{"name": d.name, "records": sum(map(len, splits.values()))} for d in context.datasets[:1]],
        "vocabSize": train.vocab_size,
        "groups": train.groups,
        "puzzleRows": train.puzzle_rows,
        "task": task,
    }


def _grids(context: RunContext, staging: Path) -> tuple[dict[str, Split], dict[str, Any]]:
    """Sudoku and Maze, divided by group over all datasets."""
    parts: dict[str, list[tuple[Any, Any]]] = {name: [] for name in SPLITS}
    shapes: set[tuple[int, int]] = set()
    task: dict[str, Any] = {}
    held_out: set[int] = set()
    # What is held out comes first, so that no training set holds a form of it.
    for dataset in sorted(context.datasets, key=lambda d: d.role == "Train"):
        place = staging / dataset.name
        place.mkdir()
        grids = read_grids(dataset, context, place)
        task = grids.task
        shapes.add((grids.inputs.shape[1], grids.vocab_size))
        from array import array

        hashes = array("Q", grids.groups.tolist())
        assignment = assign(dataset, hashes)
        names = np.array([assignment.split_of(value) or "" for value in hashes])
        leaked = (names == "train") & np.isin(grids.groups, list(held_out))
        if leaked.any():
            say(f"dataset {dataset.name}: {int(leaked.sum())} forms of held-out puzzles are not trained on")
            names[leaked] = ""
        for name in SPLITS:
            keep = names == name
            if keep.any():
                parts[name].append((grids.inputs[keep], grids.labels[keep]))
                if name != "train":
                    held_out |= set(grids.groups[keep].tolist())
    if len(shapes) > 1:
        raise invalid_config(
            "spec.datasets has puzzles of different size", hint="give all of them the same puzzle.size"
        )
    vocab_size = shapes.pop()[1]
    splits = {
        name: flat_split(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)), vocab_size=vocab_size)
        for name, found in parts.items()
        if found
    }
    return splits, task


def _arrays(context: RunContext, staging: Path) -> tuple[dict[str, Split], dict[str, Any]]:
    if len(context.datasets) > 1:
        raise invalid_config(
            "spec.datasets has more than one folder of arrays", hint="a folder holds train and test: give one dataset"
        )
    place = staging / "arrays-source"
    place.mkdir()
    found = read_arrays(context.datasets[0], context, place)
    if "eval" not in found and "test" in found:
        found["eval"] = found.pop("test")
    return found, {"kind": "Arrays", "padding": found["train"].padding}


def _arc(context: RunContext, staging: Path) -> tuple[dict[str, Split], dict[str, Any]]:
    """Demonstrations are always trained on, since a task is known by its own embedding; of datasets that are held out, the
    test pairs are what is measured."""
    pairs: dict[str, list[tuple[int, Any, Any]]] = {name: [] for name in SPLITS}
    forms = max(d.puzzle.augmentations for d in context.datasets if d.puzzle)
    number = 0
    for dataset in context.datasets:
        place = staging / dataset.name
        place.mkdir()
        for name, task in arc_tasks(dataset, context, place):
            for part, split in (("train", "train"), ("test", dataset.role.lower())):
                for index, pair in enumerate(_pairs(task, part)):
                    where = f"task {name}, {part} pair {index}"
                    if "output" not in pair:
                        continue  # a test pair whose answer is not published
                    given, wanted = (arc.lay(arc.read_grid(pair[k], place=where)) for k in ("input", "output"))
                    pairs[split].append((number, given, wanted))
            number += 1
    if not number:
        raise invalid_data("there is no ARC task in spec.datasets", hint="check storageUri")
    splits = {name: _arc_split(found, rows=number * forms, forms=forms) for name, found in pairs.items() if found}
    return splits, {"kind": "ARC", "forms": forms, "padding": arc.PADDING}


def _pairs(task: dict[str, Any], part: str) -> Iterator[dict[str, Any]]:
    value = task.get(part, [])
    if not isinstance(value, list) or not all(isinstance(pair, dict) and "input" in pair for pair in value):
        raise invalid_data(f"an ARC task's {part} is a list of pairs with input and output", hint="correct the file")
    yield from value


def _arc_split(pairs: list[tuple[int, Any, Any]], *, rows: int, forms: int) -> Split:
    """A task is a group with one puzzle; its pairs are that puzzle's examples."""
    tasks = np.array([number for number, _, _ in pairs])
    starts = np.concatenate(([0], np.flatnonzero(np.diff(tasks)) + 1, [len(pairs)])).astype(np.int32)
    return Split(
        inputs=np.stack([given for _, given, _ in pairs]).astype(np.uint8),
        labels=np.stack([wanted for _, _, wanted in pairs]).astype(np.uint8),
        puzzles=(tasks[starts[:-1]] * forms).astype(np.int32),
        puzzle_starts=starts,
        group_starts=np.arange(len(starts), dtype=np.int32),
        vocab_size=arc.VOCABULARY,
        padding=arc.PADDING,
        ignored=arc.PADDING,
        puzzle_rows=rows,
    )
