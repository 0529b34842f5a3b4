"""Which records are used, and for what: by content and seed alone.

Every record gets a number in [0, 1) from a hash of its content and a seed. Whether it is held out, and whether it belongs
to the `limit` that are used, depends on that number only: adding records to a file, changing their order or cutting the
file in two moves nothing from training to evaluation. Equal records get equal numbers, so a duplicate can never sit in
training and evaluation at once.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from dataclasses import dataclass, replace

from trainyard.api.run.dataset import Dataset

_WHOLE = 1 << 64
DEFAULT_SEED = 42
"""For datasets without a split of their own."""


def record_hash(line: bytes) -> int:
    """64 bits from a record's normal form; equal for equal records of whatever dataset."""
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Assignment:
    """How a dataset's hashes map to splits."""

    role: str
    seed: int
    test_below: int
    eval_below: int
    used_below: int | None
    eval_extra: int | None = None
    test_extra: int | None = None

    def split_of(self, value: int, group: int | None = None) -> str | None:
        """`train`, `eval` or `test`; None for a record that `limit` leaves out. With a group, that decides the side."""
        if self.used_below is not None and _number(value, self.seed, purpose=1) > self.used_below:
            return None
        if self.role != "Train":
            return self.role.lower()
        decides = value if group is None else group
        number = _number(decides, self.seed, purpose=2)
        if number < self.test_below or decides == self.test_extra:
            return "test"
        if number < self.test_below + self.eval_below or decides == self.eval_extra:
            return "eval"
        return "train"


def smallest_numbers(hashes: list[int], count: int) -> list[int]:
    """Places of the `count` records that a random choice by content takes."""
    return heapq.nsmallest(count, range(len(hashes)), key=lambda n: (_number(hashes[n], DEFAULT_SEED, purpose=4), n))


def assign(dataset: Dataset, hashes: array[int], groups: array[int] | None = None) -> Assignment:
    """Decide for all records of a dataset that are kept; `groups` has a number per record where they go together.

    A share that would come out as no record at all, in a small dataset, takes the one with the smallest number, so that
    what the manifest asks to hold out is held out.
    """
    seed = dataset.split.seed if dataset.split else DEFAULT_SEED
    used_below = None
    if dataset.limit is not None and dataset.selection_strategy == "Random" and dataset.limit < len(hashes):
        used_below = heapq.nsmallest(dataset.limit, (_number(v, seed, purpose=1) for v in hashes))[-1]
    share_test = dataset.split.test if dataset.split else 0.0
    share_eval = dataset.split.eval if dataset.split else 0.0
    plain = Assignment(
        role=dataset.role,
        seed=seed,
        test_below=int(share_test * _WHOLE),
        eval_below=int(share_eval * _WHOLE),
        used_below=used_below,
    )
    if dataset.role != "Train" or not (share_eval or share_test):
        return plain
    found: set[str] = set()
    smallest: list[int] = []  # up to three distinct training hashes: one for each share, one that must be left
    for n, value in enumerate(hashes):
        decides = value if groups is None else groups[n]
        place = plain.split_of(value, decides)
        if place == "train" and decides not in smallest and (len(smallest) < 3 or decides < smallest[-1]):
            smallest = sorted([*smallest, decides])[:3]
        elif place is not None:
            found.add(place)
    spare = smallest[:-1]
    test_extra = spare.pop(0) if share_test and "test" not in found and spare else None
    eval_extra = spare.pop(0) if share_eval and "eval" not in found and spare else None
    return replace(plain, eval_extra=eval_extra, test_extra=test_extra)


def repetitions(weight: float, value: int, seed: int = DEFAULT_SEED) -> int:
    """How often a training record is seen in an epoch: the whole part of `weight`, and once more for its fraction's share
    of the records."""
    whole = int(weight)
    return whole + (_number(value, seed, purpose=3) < int((weight - whole) * _WHOLE))


def _number(value: int, seed: int, *, purpose: int) -> int:
    """64 bits that depend on all of content, seed and purpose (splitmix64), so that limit, split and weight are independent
    choices."""
    value = (value + (2 * seed + 1) * 0x9E3779B97F4A7C15 * purpose) % _WHOLE
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % _WHOLE
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % _WHOLE
    return value ^ (value >> 31)
