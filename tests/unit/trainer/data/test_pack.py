"""Packing: nothing lost, nothing torn, little wasted."""

from __future__ import annotations

import itertools
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainyard.trainer.data.pack import one_each, pack


@given(st.lists(st.integers(1, 64), max_size=200))
def test_every_example_is_in_exactly_one_sequence_that_it_fits(lengths: list[int]) -> None:
    array = np.array(lengths, dtype=np.int64)
    items, offsets = pack(array, 64)
    assert sorted(items.tolist()) == list(range(len(lengths)))
    assert offsets[0] == 0
    assert offsets[-1] == len(lengths)
    for start, end in itertools.pairwise(offsets):
        assert end > start
        assert array[items[start:end]].sum() <= 64


def test_a_perfect_fit_is_found() -> None:
    lengths = np.array([60, 4, 32, 32, 50, 14], dtype=np.int64)
    _, offsets = pack(lengths, 64)
    assert len(offsets) - 1 == 3
    assert lengths.sum() == 3 * 64


def test_typical_examples_fill_almost_everything() -> None:
    lengths = np.random.default_rng(0).integers(10, 400, 20_000)
    started = time.monotonic()
    _, offsets = pack(lengths, 1024)
    assert lengths.sum() / ((len(offsets) - 1) * 1024) > 0.99
    assert time.monotonic() - started < 5


def test_without_packing_each_example_stands_alone() -> None:
    items, offsets = one_each(3)
    assert items.tolist() == [0, 1, 2]
    assert offsets.tolist() == [0, 1, 2, 3]
