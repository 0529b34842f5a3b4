"""The order in which examples are seen: endless, and known in advance.

An epoch is one example of each group in an order of its own; epochs follow each other without a gap. How a group's
example is chosen and which form it takes depends on the seed and on how many examples were drawn before, and on nothing
else. So the position in the data is one number, and a data set smaller than a batch fills it with several epochs instead
of training on nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainyard.trainer.trm.augment import Augment
from trainyard.trainer.trm.folder import Draw, Split
from trainyard.trainer.trm.losses import IGNORED


class Stream:
    """Training examples of one split. `drawn` is the position; setting it moves there."""

    def __init__(self, split: Split, *, seed: int, augment: Augment | None) -> None:
        self._split = split
        self._seed = seed
        self._augment = augment
        self._orders: dict[int, NDArray[np.int64]] = {}
        self.drawn = 0

    @property
    def epoch(self) -> float:
        """Passes over the groups."""
        return self.drawn / self._split.groups

    def draw(self, count: int) -> Draw:
        """The next `count` examples."""
        split = self._split
        groups = np.array([self._group(self.drawn + i) for i in range(count)], dtype=np.int64)
        rng = np.random.default_rng([self._seed, 1, self.drawn])
        puzzles = _within(split.group_starts, groups, rng)
        examples = _within(split.puzzle_starts, puzzles, rng)
        self.drawn += count
        return take(split, examples, augment=self._augment, rng=rng)

    def _group(self, position: int) -> int:
        epoch, index = divmod(position, self._split.groups)
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = np.random.default_rng([self._seed, 0, epoch]).permutation(self._split.groups)
        return int(self._orders[epoch][index])


def take(
    split: Split,
    examples: NDArray[np.int64],
    *,
    augment: Augment | None = None,
    rng: np.random.Generator | None = None,
) -> Draw:
    """Examples by number, as the network takes them."""
    inputs = split.inputs[examples].astype(np.int64)
    labels = split.labels[examples].astype(np.int64)
    if split.ignored is not None:
        labels[labels == split.ignored] = IGNORED
    draw = Draw(inputs, labels, split.puzzle_of(examples))
    return draw if augment is None or rng is None else augment(draw, rng)


def _within(starts: NDArray[np.integer], which: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One child of each of these parents, all equally likely."""
    first = starts[which].astype(np.int64)
    return first + (rng.random(len(which)) * (starts[which + 1] - first)).astype(np.int64)
