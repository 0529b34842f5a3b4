"""Putting examples into sequences of at most `max_length` tokens: best fit, longest first.

Short examples padded to the longest of their batch waste most of the arithmetic; packed, almost every position is a real
token. Each example goes into the fullest sequence that still has room for it, longest examples first, which leaves
sequences about as full as any method can. Attention does not cross from one example into the next (position ids start at
zero again), and no example is torn apart.

The plan depends on the lengths alone, so it is the same on every machine. Which sequences form a batch is decided anew
for every epoch, by the seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]


def pack(lengths: Lengths, max_length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Plan the sequences.

    Args:
        lengths: tokens of each example, all in 1..max_length.
        max_length: tokens of a sequence.

    Returns:
        `items`, the example numbers one sequence after the other, and `offsets` with one more entry than sequences:
        sequence s holds `items[offsets[s]:offsets[s + 1]]`.
    """
    # `rooms` has bit r set while some sequence has exactly r tokens of room, so the best fit is one shift away.
    sequences_with_room: dict[int, list[int]] = {}
    rooms = 0
    count = 0
    sequence_of = np.empty(len(lengths), dtype=np.int64)
    for example in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[example])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            waiting = sequences_with_room[room]
            sequence = waiting.pop()
            if not waiting:
                rooms &= ~(1 << room)
        else:
            room, sequence = max_length, count
            count += 1
        sequence_of[example] = sequence
        left = room - length
        if left:
            sequences_with_room.setdefault(left, []).append(sequence)
            rooms |= 1 << left
    items = np.argsort(sequence_of, kind="stable")
    return items, np.concatenate([[0], np.cumsum(np.bincount(sequence_of, minlength=count))])


def one_each(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The plan without packing: every example is a sequence."""
    return np.arange(count, dtype=np.int64), np.arange(count + 1, dtype=np.int64)
