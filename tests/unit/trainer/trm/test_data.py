"""Data of Tiny Recursive Models: puzzles, arrays, streams and texts, without torch."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.trainer import run_contexts
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError
from trainyard.trainer.trm import arc
from trainyard.trainer.trm.augment import renamed_entities, sudoku_forms, turned_forms
from trainyard.trainer.trm.entities import Names
from trainyard.trainer.trm.folder import Draw, Split, flat_split, read_split, write_split
from trainyard.trainer.trm.prepare import prepare
from trainyard.trainer.trm.puzzles import BOXES, GOAL, START, WAY, canonical, mazes, solve, sudoku
from trainyard.trainer.trm.stream import Stream, take
from trainyard.trainer.trm.textdata import EOS, MASK, PAD, UNKNOWN, Codec
from trainyard.trainer.trm.texttask import choose, read_example


def context(tmp_path: Path, datasets: list[dict[str, Any]], **trm: Any) -> RunContext:
    spec = {
        "model": {"trm": {"hiddenSize": 32, "numHeads": 2}},
        "datasets": datasets,
        "training": {"method": "TRM", "maxLength": 64, "trm": trm},
    }
    return run_contexts.context_of(tmp_path, spec)


def record(problem: str, solution: str, draft: str = "") -> dict[str, Any]:
    metadata = {"source": "test", "query": "", "type": "alert", "timestamp": "2026-01-01T00:00:00Z"}
    return {
        "problem": problem,
        "initial_answer": draft,
        "solution": solution,
        "reasoning_steps": [],
        "metadata": metadata,
    }


prepared = partial(run_contexts.prepared, prepare=prepare)


def on_volume(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "volumes" / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def is_sudoku(ids: np.ndarray[Any, Any], side: int) -> bool:
    grid = ids.reshape(side, side) - 1
    height, width = BOXES[side]
    boxes = grid.reshape(side // height, height, side // width, width).swapaxes(1, 2).reshape(side, side)
    return all(sorted(line) == list(range(1, side + 1)) for lines in (grid, grid.T, boxes) for line in lines)


# ---- puzzles


@pytest.mark.parametrize("side", [4, 6])
def test_every_sudoku_has_one_solution_and_no_twin(side: int) -> None:
    made = sudoku(side, 12, seed=3)
    assert len({p.group for p in made}) == 12
    for puzzle in made:
        clues = np.where(puzzle.given > 1, puzzle.given - 1, 0).astype(np.int64)
        (solution,) = solve(clues, side, limit=2)
        assert (solution + 1 == puzzle.wanted).all()
        assert is_sudoku(puzzle.wanted, side)
        kept = puzzle.given > 1
        assert (puzzle.given[kept] == puzzle.wanted[kept]).all()


def test_equal_forms_of_a_sudoku_are_one_puzzle() -> None:
    (puzzle,) = sudoku(4, 1, seed=1)
    change = sudoku_forms(4)
    ids = puzzle.given.astype(np.int64)[None].repeat(20, 0)
    forms = change(Draw(ids, ids, np.zeros(20, dtype=np.int64)), np.random.default_rng(0)).inputs
    assert len({f.tobytes() for f in forms}) > 10
    clues = np.where(forms > 1, forms - 1, 0)
    assert {canonical(c, 4) for c in clues} == {puzzle.group}


def test_too_many_small_sudokus_are_refused() -> None:
    with pytest.raises(UserError, match=r"20000 Sudokus of 4 x 4 .* are too many"):
        sudoku(4, 20000, seed=1)


def test_a_maze_has_a_shortest_way() -> None:
    for puzzle in mazes(9, 3, seed=1):
        given, wanted = puzzle.given.reshape(9, 9), puzzle.wanted.reshape(9, 9)
        assert (given == START).sum() == (given == GOAL).sum() == 1
        at = tuple(np.argwhere(wanted == START)[0])
        seen = {at}
        while wanted[at] != GOAL:
            steps = [(at[0] + r, at[1] + c) for r, c in ((0, 1), (1, 0), (0, -1), (-1, 0))]
            following = [s for s in steps if wanted[s] in (WAY, GOAL) and s not in seen]
            assert len(following) == 1
            at = following[0]
            seen.add(at)
        assert len(seen) == (wanted == WAY).sum() + 2


# ---- other forms


def test_augmentation_keeps_a_sudoku_solved() -> None:
    made = sudoku(6, 4, seed=2)
    draw = Draw(
        np.stack([p.given for p in made]).astype(np.int64),
        np.stack([p.wanted for p in made]).astype(np.int64),
        np.zeros(4, dtype=np.int64),
    )
    changed = sudoku_forms(6)(draw, np.random.default_rng(1))
    assert (changed.inputs != draw.inputs).any()
    for given, wanted in zip(changed.inputs, changed.labels, strict=True):
        assert is_sudoku(wanted, 6)
        assert (given[given > 1] == wanted[given > 1]).all()


def test_turned_grids_keep_input_and_label_together() -> None:
    ids = np.arange(16, dtype=np.int64)[None].repeat(30, 0)
    changed = turned_forms(4)(Draw(ids, ids + 100, np.zeros(30, dtype=np.int64)), np.random.default_rng(0))
    assert (changed.inputs + 100 == changed.labels).all()
    assert len({c.tobytes() for c in changed.inputs}) == 8


def test_names_change_in_problem_and_solution_alike() -> None:
    change = renamed_entities([(5, 9)], vocab_size=20)
    draw = Draw(np.array([[1, 5, 6, 12]] * 9), np.array([[6, -100, 0, -100]] * 9), np.zeros(9, dtype=np.int64))
    changed = change(draw, np.random.default_rng(0))
    assert (changed.inputs[:, [0, 3]] == [1, 12]).all()
    assert (changed.labels[:, 0] == changed.inputs[:, 2]).all()
    assert (changed.labels[:, [1, 2, 3]] == [-100, 0, -100]).all()
    assert len(set(changed.labels[:, 0].tolist())) > 1


def test_an_arc_form_is_fixed_by_its_row() -> None:
    grid = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
    assert (arc.pick_up(arc.lay(grid, top=3, left=5)) == grid).all()
    laid = arc.lay(grid)
    forms = [arc.other_form(laid, laid, seed=7, rng=np.random.default_rng(n))[0] for n in range(4)]
    assert len({arc.pick_up(f).tobytes() for f in forms}) == 1
    assert len({f.tobytes() for f in forms}) > 1  # but it may lie anywhere


# ---- arrays and streams


def example_split(groups: int) -> Split:
    ids = np.arange(groups * 3, dtype=np.uint8).reshape(groups, 3) % 7
    return flat_split(ids, ids, vocab_size=7)


def test_a_split_survives_its_files(tmp_path: Path) -> None:
    split = example_split(4)
    write_split(tmp_path / "train", split)
    again = read_split(tmp_path / "train", name="d")
    assert (again.inputs == split.inputs).all()
    assert again.vocab_size == 7
    assert again.groups == 4
    names = sorted(f.name for f in (tmp_path / "train").iterdir())
    assert names == ["all__" + n + ".npy" for n in sorted(
        ("group_indices", "inputs", "labels", "puzzle_identifiers", "puzzle_indices")
    )] + ["dataset.json"]  # fmt: skip


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("inputs", np.full((4, 3), 9, dtype=np.uint8), "inputs hold ids outside 0..6"),
        ("labels", np.zeros((4, 3), dtype=np.uint8), "no label counts"),
        ("labels", np.ones((4, 2), dtype=np.uint8), "must be two equal tables"),
        ("group_indices", np.array([0, 2]), "group_indices must rise from 0 to 4"),
        ("puzzle_identifiers", np.array([0, 0, 0, 5]), "puzzle_identifiers reach 5"),
    ],
)
def test_damaged_arrays_are_refused_with_what_is_wrong(
    tmp_path: Path, array: str, value: np.ndarray[Any, Any], message: str
) -> None:
    write_split(tmp_path / "train", example_split(4))
    np.save(tmp_path / "train" / f"all__{array}.npy", value)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path / "train", name="d")


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    write_split(tmp_path / "train", example_split(4))
    (tmp_path / "train" / "all__labels.npy").unlink()
    with pytest.raises(UserError, match=r"all__labels\.npy"):
        read_split(tmp_path / "train", name="d")


def test_an_epoch_shows_every_group_once_and_starts_anywhere() -> None:
    split = example_split(10)
    stream = Stream(split, seed=1, augment=None)
    epoch = np.concatenate([stream.draw(n).inputs for n in (3, 4, 3)])
    assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, take(split, np.arange(10)).inputs.tolist()))
    following = stream.draw(5).inputs
    other = Stream(split, seed=1, augment=None)
    other.drawn = 10
    assert (other.draw(5).inputs == following).all()


def test_a_group_with_many_puzzles_weighs_as_much_as_one_with_one() -> None:
    ids = np.array([[1], [1], [1], [2]], dtype=np.uint8)
    split = Split(ids, ids, np.zeros(4, np.int32), np.arange(5), np.array([0, 3, 4]), vocab_size=3)
    seen = Stream(split, seed=0, augment=None).draw(400).inputs.ravel()
    assert (seen == 2).sum() == 200


def test_a_draw_larger_than_the_data_is_filled_by_several_epochs() -> None:
    assert len(Stream(example_split(3), seed=0, augment=None).draw(10)) == 10


# ---- the prepare step


def test_generated_sudokus_are_divided_and_written_in_the_published_layout(tmp_path: Path) -> None:
    made = context(
        tmp_path, [{"name": "s", "puzzle": {"kind": "Sudoku", "size": 4, "count": 40}, "split": {"eval": 0.25}}]
    )
    manifest = prepared(made, tmp_path)
    train, held_out = (read_split(made.data_dir / name, name=name) for name in ("train", "eval"))
    assert len(train) + len(held_out) == 40
    assert len(held_out)
    assert manifest["task"]["kind"] == "Sudoku"
    assert manifest["vocabSize"] == 6
    forms = [{canonical(np.where(g > 1, g - 1, 0).astype(np.int64), 4) for g in s.inputs} for s in (train, held_out)]
    assert not forms[0] & forms[1]
    digest = manifest["digest"]
    assert prepared(made, tmp_path)["digest"] == digest


def test_published_tables_are_read(tmp_path: Path) -> None:
    puzzle = sudoku(4, 3, seed=5)
    rows = ["source,question,answer,rating"]
    for p in puzzle:
        question = "".join("." if i == 1 else str(i - 1) for i in p.given)
        rows.append(f"x,{question},{''.join(str(i - 1) for i in p.wanted)},0")
    on_volume(tmp_path, "sudoku.csv").write_text("\n".join(rows) + "\n")
    spec = {"kind": "Sudoku", "size": 4, "storageUri": "pvc://data/sudoku.csv"}
    made = context(tmp_path, [{"name": "s", "puzzle": spec}])
    prepared(made, tmp_path)
    assert (read_split(made.data_dir / "train", name="t").inputs == np.stack([p.given for p in puzzle])).all()


def test_a_wrong_answer_in_a_table_is_found(tmp_path: Path) -> None:
    on_volume(tmp_path, "sudoku.csv").write_text("question,answer\n" + "." * 16 + "," + "1" * 16 + "\n")
    spec = {"kind": "Sudoku", "size": 4, "storageUri": "pvc://data/sudoku.csv"}
    with pytest.raises(UserError, match=r"sudoku\.csv:2: the answer is no solution"):
        prepared(context(tmp_path, [{"name": "s", "puzzle": spec}]), tmp_path)


def test_a_folder_of_arrays_is_taken_as_it_is(tmp_path: Path) -> None:
    write_split(on_volume(tmp_path, "set") / "train", example_split(6))
    write_split(on_volume(tmp_path, "set") / "test", example_split(2))
    made = context(tmp_path, [{"name": "a", "puzzle": {"kind": "Arrays", "storageUri": "pvc://data/set"}}])
    manifest = prepared(made, tmp_path)
    assert {n: s["records"] for n, s in manifest["splits"].items()} == {"train": 6, "eval": 2, "test": 0}
    assert "evaluate" in made.run.spec.steps()


def test_arc_tasks_are_trained_on_their_demonstrations(tmp_path: Path) -> None:
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    for name in ("train/a.json", "held/b.json"):
        on_volume(tmp_path, name).write_text(json.dumps({"train": [pair, pair], "test": [pair]}))
    made = context(
        tmp_path,
        [
            {"name": "t", "puzzle": {"kind": "ARC", "storageUri": "pvc://data/train/", "augmentations": 5}},
            {"name": "e", "role": "Eval", "puzzle": {"kind": "ARC", "storageUri": "pvc://data/held/"}},
        ],
    )
    manifest = prepared(made, tmp_path)
    assert {n: s["records"] for n, s in manifest["splits"].items()} == {"train": 5, "eval": 1, "test": 0}
    train = read_split(made.data_dir / "train", name="train")
    held_out = read_split(made.data_dir / "eval", name="eval")
    assert train.groups == 2
    assert train.length == 900
    assert held_out.puzzles[0] in train.puzzles


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    datasets = [{"name": k.lower(), "puzzle": {"kind": k, "size": 9, "count": 2}} for k in ("Sudoku", "Maze")]
    with pytest.raises(UserError, match="one network learns one kind of task"):
        prepared(context(tmp_path, datasets), tmp_path)


# ---- texts

ALERTS = [
    ("OOMKilled", "raise the memory limit of <pod>"),
    ("CrashLoopBackOff", "read the previous log of <pod>"),
    ("ImagePullBackOff", "check the image name and the pull secret"),
]


def alert(number: int) -> dict[str, Any]:
    what, solution = ALERTS[number % 3]
    pod = f"web-{number:07d}ab-x{number:04d}"
    return record(f"pod {pod} on 10.0.0.{number % 250} is {what}", solution.replace("<pod>", pod))


def test_names_are_taken_out_and_put_back() -> None:
    names = Names()
    taken = names.take_out("pod web-7d4b9c6f5-x2x8p on 10.0.3.7:8080 sees 10.0.3.7:8080 and 5s")
    assert taken == "pod <pod1> on <ip1> sees <ip1> and <num1>"
    assert names.take_out_known("delete web-7d4b9c6f5-x2x8p, keep 10.9.9.9") == "delete <pod1>, keep 10.9.9.9"
    assert names.put_back("delete <pod1> on <ip2>") == "delete web-7d4b9c6f5-x2x8p on <ip2>"


def test_a_codebook_is_found_and_answers_never_stand_in_the_input(tmp_path: Path) -> None:
    records = [{**a, "problem": f"{a['problem']} in {chr(97 + n)}space"} for n in range(24) for a in [alert(n)]]
    datasets = [{"name": "d", "format": "TRM", "inline": {"records": records}, "split": {"eval": 0.2}}]
    made = context(tmp_path, datasets)
    manifest = prepared(made, tmp_path)
    assert manifest["task"]["textTask"] == "Codebook"
    split = read_split(made.data_dir / "train", name="train")
    codec = Codec.load(made.data_dir / "tokenizer")
    assert (split.inputs[:, 0] == MASK).all()
    assert (split.inputs < codec.layout.first_code).all()
    assert (split.labels[:, 1:] == PAD).all()
    assert (split.labels[:, 0] >= codec.layout.first_code).all()
    example = read_example(alert(4)["problem"], "", "")
    wanted = codec.labels(read_example(alert(4)["problem"], "", alert(4)["solution"]))
    assert wanted is not None
    assert codec.read(wanted, example) == alert(4)["solution"]


def test_problems_that_differ_in_names_only_are_on_one_side(tmp_path: Path) -> None:
    words = [f"{a}{b}" for a in "abcdefgh" for b in "klmno"]
    records = [record(f"{w} fails on 10.0.0.{n}", f"restart {w[0]}") for w in words for n in range(5)]
    datasets = [{"name": "d", "format": "TRM", "inline": {"records": records}, "split": {"eval": 0.25}}]
    made = context(tmp_path, datasets)
    counts = {name: s["records"] for name, s in prepared(made, tmp_path)["splits"].items() if s["records"]}
    assert sum(counts.values()) == 200, "none is left out"
    assert all(count % 5 == 0 for count in counts.values()), "five forms of a problem stay together"
    assert 5 <= counts["eval"] <= 100


def test_what_a_dataset_for_evaluation_has_is_not_trained_on(tmp_path: Path) -> None:
    datasets = [
        {
            "name": "t",
            "format": "TRM",
            "inline": {"records": [record(f"{w} on 10.0.0.1", w[0]) for w in ("ak", "al", "bk", "bl", "bm")]},
        },
        {"name": "e", "role": "Eval", "format": "TRM", "inline": {"records": [record("bm on 10.9.9.9", "b")]}},
    ]
    splits = prepared(context(tmp_path, datasets), tmp_path)["splits"]
    assert (splits["train"]["records"], splits["eval"]["records"]) == (4, 1)


def test_free_text_is_refused_with_the_reason(tmp_path: Path) -> None:
    records = [record(f"why {n}?", f"because of {n * 7} reasons numbered {n}") for n in range(9)]
    datasets = [{"name": "d", "format": "TRM", "inline": {"records": records}}]
    with pytest.raises(UserError, match="free text, which a Tiny Recursive Model cannot learn") as caught:
        prepared(context(tmp_path, datasets), tmp_path)
    assert "Label: 9 different solutions in 9 records" in caught.value.message
    made = context(tmp_path, datasets, experimental=True)
    assert prepared(made, tmp_path)["task"]["textTask"] == "FreeForm"


def test_extraction_and_repair_are_told_apart() -> None:
    extract = [read_example(f"error on host {w} at noon", "", f"host={w}") for w in ("ab", "cd", "ef", "gh")]
    assert choose("Auto", extract, experimental=False) == "Extract"
    repair = [read_example(f"relpicas: {w}", "", f"replicas: {w}") for w in ("ab", "cd", "ef", "gh")]
    assert choose("Auto", repair, experimental=False) == "Repair"
    with pytest.raises(UserError, match="task Label does not fit"):
        choose("Label", repair, experimental=False)


def test_an_unseen_label_counts_as_wrong(tmp_path: Path) -> None:
    datasets = [
        {"name": "t", "format": "TRM", "inline": {"records": [record(f"p {c}", c) for c in "aabbcc"]}},
        {"name": "e", "role": "Eval", "format": "TRM", "inline": {"records": [record("q", "never")]}},
    ]
    made = context(tmp_path, datasets)
    prepared(made, tmp_path)
    assert read_split(made.data_dir / "eval", name="eval").labels[0, 0] == UNKNOWN


def test_the_answer_ends_and_what_follows_does_not_count(tmp_path: Path) -> None:
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    records = [record(f"host {w} fails", f"host={w}") for w in words]
    made = context(tmp_path, [{"name": "d", "format": "TRM", "inline": {"records": records}}], task="Extract")
    prepared(made, tmp_path)
    for row in read_split(made.data_dir / "train", name="train").labels:
        end = row.tolist().index(EOS)
        assert (row[:end] > UNKNOWN).all()
        assert (row[end + 1 :] == PAD).all()
