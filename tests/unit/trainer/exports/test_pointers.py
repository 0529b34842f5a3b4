"""Whatever is killed between two writes, and whoever comes again: what is in use is there, and both ways end the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainyard.trainer.exports.pointers import CURRENT, Move, back, promote

Held = dict[str, str | None]


def carry_out(held: Held, moves: list[Move], upto: int | None = None) -> Held:
    return held | {move.pointer: move.version for move in moves[:upto]}


def promoted(held: Held, new: str, upto: int | None = None) -> Held:
    return carry_out(held, promote(new, current=held["current"], previous=held["previous"]), upto)


def taken_back(held: Held, new: str, upto: int | None = None) -> Held:
    return carry_out(held, back(new, current=held["current"], previous=held["previous"]), upto)


VERSIONS = st.sampled_from(("1", "2", "3", "9", "10"))
HELD = st.tuples(st.none() | VERSIONS, st.none() | VERSIONS).map(lambda two: {"current": two[0], "previous": two[1]})


@given(held=HELD, new=VERSIONS, killed=st.integers(0, 2))
def test_a_promotion_ends_the_same_wherever_it_was_killed(held: Held, new: str, killed: int) -> None:
    wanted = promoted(held, new)
    half = promoted(held, new, killed)
    assert half["current"] in (held["current"], new)
    assert promoted(half, new) == wanted
    assert promoted(wanted, new) == wanted
    assert wanted["current"] == new
    if held["current"] not in (None, new):
        assert wanted["previous"] == held["current"]


@given(old=VERSIONS, new=VERSIONS, killed=st.integers(0, 2))
def test_back_ends_the_same_wherever_it_was_killed(old: str, new: str, killed: int) -> None:
    held = promoted({"current": old, "previous": None}, new)
    wanted = taken_back(held, new)
    assert wanted["current"] == old
    half = taken_back(held, new, killed)
    assert taken_back(half, new) == wanted
    assert taken_back(wanted, new) == wanted


def test_back_of_one_that_is_not_in_use_does_nothing() -> None:
    assert back("1", current="2", previous="1") == []
    assert back("1", current="1", previous=None) == []
    assert back("1", current=None, previous=None) == []


def test_what_is_in_use_is_written_last_when_there_is_a_new_one() -> None:
    assert [move.pointer for move in promote("2", current="1", previous=None)][-1] == CURRENT
