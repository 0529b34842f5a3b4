"""Finding records that say the same, in bounded memory.

Equal records have equal hashes. Nearly equal ones are found by MinHash: a text's set of three-word shingles is reduced to
64 numbers, of which two texts share about the share of shingles that they share (their Jaccard similarity). Texts that
agree in one of 16 bands of four numbers are compared; what shares at least NEAR of the 64 counts as the same. The share
scatters by about 0.04, so by arithmetic one pair in 250 at a similarity of 0.9 is missed, far fewer at 0.95,
and of pairs at 0.7 about one in 25 counts as the same too.

The numbers lie in a file, 256 bytes a record; in memory are one band at a time and the union of what was found, about 60 bytes
a record, so a million records take 60 MB.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
"""Share of equal numbers from which two texts count as the same."""
BANDS, ROWS = 16, 4
NUMBERS = BANDS * ROWS
SHINGLE = 3
_WORD = re.compile(r"\w+|[^\w\s]")
_random = np.random.default_rng(20)
_FACTORS = (_random.integers(1, 1 << 62, NUMBERS, dtype=np.uint64) << np.uint64(1)) | np.uint64(1)
_OFFSETS = _random.integers(0, 1 << 63, NUMBERS, dtype=np.uint64)


def words_of(record: Any) -> str:
    """Everything a record says, in one text; names of fields and metadata do not count."""
    if isinstance(record, str):
        return record
    if isinstance(record, dict):
        return " ".join(words_of(v) for k, v in record.items() if k not in ("metadata", "role", "tools"))
    if isinstance(record, list):
        return " ".join(map(words_of, record))
    return ""


def signature(text: str) -> NDArray[np.uint32]:
    """The 64 numbers of a text, uint32 [64]."""
    words = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in _WORD.findall(text.lower())]
    hashed = np.array(words or [0], dtype=np.uint64)
    if len(hashed) > SHINGLE:
        mixed = np.zeros(len(hashed) - SHINGLE + 1, dtype=np.uint64)
        for place in range(SHINGLE):
            mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + hashed[place : place + len(mixed)]
        hashed = np.unique(mixed)
    lowest = np.full(NUMBERS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(hashed), 4096):
        block = hashed[start : start + 4096]
        lowest = np.minimum(lowest, (block[:, None] * _FACTORS + _OFFSETS).min(axis=0))
    return (lowest >> np.uint64(32)).astype(np.uint32)


class Signatures:
    """Signatures in a file, in the order in which they were added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = open(path, "wb")  # noqa: SIM115 - closed by clusters_of()
        self.count = 0

    def add(self, text: str) -> None:
        """The next record's."""
        self._stream.write(signature(text).tobytes())
        self.count += 1

    @classmethod
    def clusters_of(cls, several: Sequence[Signatures]) -> NDArray[np.int64]:
        """For each record, counted over all files in order, the number of the first that it is nearly equal to.

        The files are removed.
        """
        whole = several[0]._path
        several[0]._stream.close()
        with open(whole, "ab") as target:
            for other in several[1:]:
                other._stream.close()
                with open(other._path, "rb") as source:
                    shutil.copyfileobj(source, target)
                other._path.unlink()
        count = sum(one.count for one in several)
        if count < 2:
            leader = np.arange(count, dtype=np.int64)
        else:
            leader = _clusters(np.memmap(whole, dtype=np.uint32, mode="r", shape=(count, NUMBERS)))
        whole.unlink()
        return leader


def _clusters(table: NDArray[np.uint32]) -> NDArray[np.int64]:
    count = len(table)
    leader = np.arange(count, dtype=np.int64)
    for band in range(BANDS):
        rows = np.ascontiguousarray(table[:, band * ROWS : (band + 1) * ROWS]).astype(np.uint64)
        keys = rows[:, 0]
        for column in range(1, ROWS):
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + rows[:, column]
        order = np.argsort(keys, kind="stable")
        for place in np.flatnonzero(keys[order][1:] == keys[order][:-1]):
            # Neighbours in the band are compared, and each with the first of the group that the other belongs to.
            first, second = int(order[place]), int(order[place + 1])
            a, b = _root(leader, first), _root(leader, second)
            if a != b and (_alike(table, first, second) or _alike(table, a, second)):
                leader[max(a, b)] = min(a, b)
    for n in range(count):
        leader[n] = _root(leader, n)
    return leader


def _alike(table: NDArray[np.uint32], first: int, second: int) -> bool:
    return float(np.mean(table[first] == table[second])) >= NEAR


def _root(leader: NDArray[np.int64], n: int) -> int:
    while leader[n] != n:
        leader[n] = leader[leader[n]]
        n = int(leader[n])
    return n


def first_of_equals(hashes: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    """The same for equal records: for each the number of the first record with its hash, over all lists in order."""
    values = np.concatenate([np.array(part, dtype=np.uint64) for part in hashes] or [np.empty(0, np.uint64)])
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)
