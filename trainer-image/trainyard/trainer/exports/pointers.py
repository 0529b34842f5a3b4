"""Moving what points at the model in use: an alias, a tag, `latest.json`. Pure.

Two pointers, the one in use and the one before. Each write is made by itself, and a process may be killed between two; so the
order is such that the pointer in use never points at nothing, and whoever comes again goes on where the last one stopped.

    promote   previous := what is in use;  in use := the new one
    back      in use := previous;          previous := the one that is given up
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Move:
    """One write: `current` or `previous` is to point at `version`."""

    pointer: str
    version: str


CURRENT = "current"
PREVIOUS = "previous"


def promote(new: str, *, current: str | None, previous: str | None) -> list[Move]:
    """What makes `new` the one in use; nothing, if it is."""
    if current == new:
        return []
    moves = [] if current in (None, previous) else [Move(PREVIOUS, str(current))]
    return [*moves, Move(CURRENT, new)]


def back(given_up: str, *, current: str | None, previous: str | None) -> list[Move]:
    """What makes the one before `given_up` the one in use again.

    Nothing where another has taken its place since, or there is none before; half of it where it was done half.
    """
    if current == given_up:
        return [] if previous in (None, given_up) else [Move(CURRENT, str(previous)), Move(PREVIOUS, given_up)]
    return [Move(PREVIOUS, given_up)] if current is not None and current == previous else []
