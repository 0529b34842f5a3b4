"""Token sequences on disk, memory-mapped when read: a terabyte of them costs no memory, and no time to open.

<split>/tokens.bin     every example's ids, one after the other (uint16 where the vocabulary allows it, else uint32)
<split>/counts.bin     one byte per token: does it count for the loss? Missing if all do
<split>/starts.npy     where each example begins in these, with the end as the last entry
<split>/items.npy      example numbers, sequence by sequence (an example that is repeated appears as often)
<split>/offsets.npy    where each sequence begins in items
<split>/good.npy       of judged answers: whether each example was found good, a truth value each
<split>/answers.bin    of prompts: the answers as text, one after the other; answers.npy has where each begins

A preference is a sequence too, of two examples: the chosen one and the rejected one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainyard.trainer.data.pack import one_each, pack
from trainyard.trainer.data.tokenize import Example

IGNORED = -100
"""Label of a token that does not count, as torch's cross entropy takes it."""


def write_split(
    folder: Path,
    examples: Iterable[tuple[Example, int]],
    *,
    vocab_size: int,
    max_length: int,
    packing: bool,
    pairs: bool = False,
) -> int:
    """Write one split. Examples come with the number of times they are repeated. Returns the number of sequences.

    With `pairs`, every two examples are the chosen and the rejected one of a preference, and stay together.
    """
    folder.mkdir()
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    starts = array("q", [0])
    occurrences = array("q")
    some_do_not_count = False
    answer_starts = array("q", [0])
    good = bytearray()
    with (
        open(folder / "tokens.bin", "wb") as tokens,
        open(folder / "counts.bin", "wb") as counts,
        open(folder / "answers.bin", "wb") as answers,
    ):
        for number, (example, repeat) in enumerate(examples):
            tokens.write(np.asarray(example.ids, dtype=dtype).tobytes())
            counts.write(bytes(example.counts) if example.counts is not None else b"\x01" * len(example.ids))
            some_do_not_count |= example.counts is not None
            starts.append(starts[-1] + len(example.ids))
            answer_starts.append(
                answer_starts[-1] + answers.write((example.answer or "").encode("utf-8", "surrogatepass"))
            )
            if example.good is not None and not pairs:
                good.append(example.good)
            if not pairs:
                occurrences.extend([number] * repeat)
            elif number % 2:
                occurrences.extend([number - 1, number] * repeat)
    if answer_starts[-1]:
        np.save(folder / "answers.npy", np.frombuffer(answer_starts, dtype=np.int64))
    else:
        (folder / "answers.bin").unlink()
    if good:
        np.save(folder / "good.npy", np.frombuffer(good, dtype=np.bool_))
    if not some_do_not_count:
        (folder / "counts.bin").unlink()
    start_of = np.frombuffer(starts, dtype=np.int64)
    used = np.frombuffer(occurrences, dtype=np.int64) if occurrences else np.empty(0, dtype=np.int64)
    lengths = np.diff(start_of)[used]
    if pairs:
        items, offsets = np.arange(len(used)), np.arange(0, len(used) + 1, 2)
    else:
        items, offsets = pack(lengths, max_length) if packing else one_each(len(used))
    np.save(folder / "starts.npy", start_of)
    np.save(folder / "items.npy", used[items])
    np.save(folder / "offsets.npy", offsets)
    return len(offsets) - 1


@dataclass(frozen=True)
class Sequences:
    """One split, ready to be indexed: `sequences[i]` is the i-th sequence."""

    tokens: NDArray[np.unsignedinteger]
    counts: NDArray[np.bool_] | None
    starts: NDArray[np.int64]
    items: NDArray[np.int64]
    offsets: NDArray[np.int64]
    answers: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None
    judgements: NDArray[np.bool_] | None = None

    @classmethod
    def open(cls, folder: Path, *, vocab_size: int) -> Sequences:
        """Map a split that `write_split` wrote for the same vocabulary."""
        dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        counts = folder / "counts.bin"
        return cls(
            tokens=_map(folder / "tokens.bin", dtype),
            counts=_map(counts, np.bool_) if counts.exists() else None,
            starts=np.load(folder / "starts.npy", mmap_mode="r"),
            items=np.load(folder / "items.npy", mmap_mode="r"),
            offsets=np.load(folder / "offsets.npy", mmap_mode="r"),
            answers=(_map(folder / "answers.bin", np.uint8), np.load(folder / "answers.npy", mmap_mode="r"))
            if (folder / "answers.npy").exists()
            else None,
            judgements=np.load(folder / "good.npy", mmap_mode="r") if (folder / "good.npy").exists() else None,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence."""
        of_items = np.diff(self.starts)[self.items]
        return np.add.reduceat(of_items, self.offsets[:-1]) if len(of_items) else of_items

    def unpacked(self) -> Sequences:
        """The same examples, each in a sequence of its own."""
        items, offsets = self.items, np.arange(len(self.items) + 1, dtype=np.int64)
        return Sequences(self.tokens, self.counts, self.starts, items, offsets)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        """`input_ids`, `labels` and `position_ids` of one sequence, all int64 [tokens].

        The first token of each example has no label: what stands before it belongs to another example.
        """
        parts = self.parts(index)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def parts(self, index: int) -> list[dict[str, NDArray[np.int64]]]:
        """The same, example by example."""
        parts = []
        for place in self.places(index):
            example = self.tokens[place].astype(np.int64)
            label = example.copy()
            if self.counts is not None:
                label[~self.counts[place]] = IGNORED
            label[0] = IGNORED
            positions = np.arange(len(example), dtype=np.int64)
            parts.append({"input_ids": example, "labels": label, "position_ids": positions})
        return parts

    def places(self, index: int) -> list[slice]:
        """Where the tokens of each example of a sequence lie."""
        items = self.items[self.offsets[index] : self.offsets[index + 1]]
        return [slice(int(self.starts[item]), int(self.starts[item + 1])) for item in items]

    def answer(self, index: int) -> str:
        """What a right response to the prompt that is sequence `index` would be; empty if that is not known."""
        if self.answers is None:
            return ""
        text, starts = self.answers
        item = int(self.items[index])
        return bytes(text[starts[item] : starts[item + 1]]).decode("utf-8", "surrogatepass")

    def good(self, index: int) -> bool:
        """Whether the judged answer that is sequence `index` was found good."""
        assert self.judgements is not None
        return bool(self.judgements[int(self.items[index])])

    def example(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """Ids and counts of one example by its number."""
        start, end = int(self.starts[index]), int(self.starts[index + 1])
        counts = None if self.counts is None else np.asarray(self.counts[start:end])
        return self.tokens[start:end].astype(np.int64), counts


def _map(file: Path, dtype: type) -> NDArray:  # type: ignore[type-arg]
    # An empty file cannot be mapped.
    return np.memmap(file, dtype=dtype, mode="r") if file.stat().st_size else np.empty(0, dtype=dtype)
