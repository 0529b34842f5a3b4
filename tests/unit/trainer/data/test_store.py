"""Token sequences on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainyard.trainer.data.store import IGNORED, Sequences, write_split
from trainyard.trainer.data.tokenize import Example


def write(folder: Path, *examples: tuple[Example, int], vocab_size: int = 100, packing: bool = True) -> Sequences:
    write_split(folder, examples, vocab_size=vocab_size, max_length=8, packing=packing)
    return Sequences.open(folder, vocab_size=vocab_size)


def test_packed_examples_keep_their_own_positions_and_first_tokens_are_not_predicted(tmp_path: Path) -> None:
    split = write(tmp_path / "s", (Example([1, 2, 3], None), 1), (Example([4, 5, 6, 7], None), 1))
    assert len(split) == 1
    row = split[0]
    assert row["input_ids"].tolist() == [1, 2, 3, 4, 5, 6, 7] or row["input_ids"].tolist() == [4, 5, 6, 7, 1, 2, 3]
    ids, labels, positions = (row[name].tolist() for name in ("input_ids", "labels", "position_ids"))
    for index, position in enumerate(positions):
        assert labels[index] == (IGNORED if position == 0 else ids[index])
    assert sorted(positions) == [0, 0, 1, 1, 2, 2, 3]


def test_tokens_that_do_not_count_have_no_label(tmp_path: Path) -> None:
    split = write(tmp_path / "s", (Example([1, 2, 3, 4], [False, False, True, True]), 1))
    assert split[0]["labels"].tolist() == [IGNORED, IGNORED, 3, 4]


def test_repetition_repeats_the_example_not_its_tokens(tmp_path: Path) -> None:
    split = write(tmp_path / "s", (Example([1, 2, 3], None), 3), (Example([7, 8], None), 1), packing=False)
    assert len(split) == 4
    assert (tmp_path / "s" / "tokens.bin").stat().st_size == 5 * 2
    assert [split[i]["input_ids"].tolist() for i in range(4)] == [[1, 2, 3]] * 3 + [[7, 8]]


@pytest.mark.parametrize(("vocab_size", "width"), [(65_536, 2), (65_537, 4)])
def test_ids_take_two_bytes_where_they_fit(tmp_path: Path, vocab_size: int, width: int) -> None:
    split = write(tmp_path / "s", (Example([0, vocab_size - 1], None), 1), vocab_size=vocab_size)
    assert split[0]["input_ids"].tolist() == [0, vocab_size - 1]
    assert (tmp_path / "s" / "tokens.bin").stat().st_size == 2 * width


def test_an_empty_split_can_be_opened(tmp_path: Path) -> None:
    assert len(write(tmp_path / "s")) == 0


def test_unpacked_gives_the_same_examples_one_by_one(tmp_path: Path) -> None:
    split = write(tmp_path / "s", (Example([1, 2, 3], None), 1), (Example([4, 5, 6, 7], [False, True, True, True]), 1))
    alone = split.unpacked()
    assert sorted(tuple(alone[i]["input_ids"]) for i in range(len(alone))) == [(1, 2, 3), (4, 5, 6, 7)]
    ids, counts = split.example(1)
    assert ids.tolist() == [4, 5, 6, 7]
    assert counts is not None
    assert np.array_equal(counts, [False, True, True, True])
