"""Which record goes where: by content and seed, in the shares asked for."""

from __future__ import annotations

from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.split import assign, record_hash, repetitions


def dataset(**fields: object) -> Dataset:
    return Dataset.model_validate({"name": "d", "inline": {"text": "x"}, **fields})


def hashes(count: int) -> array[int]:
    return array("Q", (record_hash(str(n).encode()) for n in range(count)))


def places(made: Dataset, values: array[int]) -> Counter[str | None]:
    assignment = assign(made, values)
    return Counter(assignment.split_of(value) for value in values)


def test_shares_come_out() -> None:
    found = places(dataset(split={"eval": 0.2, "test": 0.1}), hashes(20_000))
    assert found["eval"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert found["test"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert found["train"] / 20_000 == pytest.approx(0.7, abs=0.01)


def test_another_seed_holds_out_others() -> None:
    values = hashes(1000)
    one = assign(dataset(split={"eval": 0.5, "seed": 1}), values)
    two = assign(dataset(split={"eval": 0.5, "seed": 2}), values)
    same = sum(one.split_of(v) == two.split_of(v) for v in values)
    assert 400 < same < 600


def test_adding_records_moves_none() -> None:
    few, many = hashes(500), hashes(5000)
    made = dataset(split={"eval": 0.3})
    before, after = assign(made, few), assign(made, many)
    assert [before.split_of(v) for v in few] == [after.split_of(v) for v in few]


@given(count=st.integers(min_value=3, max_value=12), seed=st.integers(0, 1000))
def test_a_small_share_is_never_empty_and_training_neither(count: int, seed: int) -> None:
    values = array("Q", (record_hash(f"{seed}/{n}".encode()) for n in range(count)))
    found = places(dataset(split={"eval": 0.01, "test": 0.01, "seed": seed}), values)
    assert found["eval"] >= 1
    assert found["test"] >= 1
    assert found["train"] >= 1


def test_a_single_record_is_trained_on() -> None:
    assert places(dataset(split={"eval": 0.1}), hashes(1)) == {"train": 1}


def test_duplicates_stay_together() -> None:
    doubled = array("Q", [*hashes(300), *hashes(300)])
    assignment = assign(dataset(split={"eval": 0.5}), doubled)
    assert all(
        assignment.split_of(a) == assignment.split_of(b) for a, b in zip(doubled[:300], doubled[300:], strict=True)
    )


def test_a_limit_takes_that_many_by_content() -> None:
    values = hashes(1000)
    found = places(dataset(limit=100), values)
    assert found == {"train": 100, None: 900}
    forward, backward = (assign(dataset(limit=100), array("Q", seen)) for seen in (values, reversed(values)))
    assert {v for v in values if forward.split_of(v)} == {v for v in values if backward.split_of(v)}


def test_a_limit_does_not_disturb_the_shares() -> None:
    found = places(dataset(limit=5000, split={"eval": 0.2}), hashes(10_000))
    assert found["eval"] == pytest.approx(1000, abs=100)


def test_a_whole_data_set_is_held_out_by_its_role() -> None:
    assert places(dataset(role="Test"), hashes(10)) == {"test": 10}


@pytest.mark.parametrize(("weight", "mean"), [(1.0, 1.0), (2.0, 2.0), (0.5, 0.5), (1.25, 1.25)])
def test_weights(weight: float, mean: float) -> None:
    values = hashes(10_000)
    assert sum(repetitions(weight, v) for v in values) / 10_000 == pytest.approx(mean, abs=0.02)
