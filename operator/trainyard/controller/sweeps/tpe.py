"""The tree-structured Parzen estimator of Bergstra et al. (2011): near what was good, away from what was bad. Pure.

The trials are split by their value; over each part a density is laid: for a number, a mixture of normal distributions around the
values that were tried, cut off at the bounds, with a broad one over all of the range; for a choice, how often each was taken. Of some
candidates drawn from the good density, the one counts that is likeliest to be good rather than bad. Each parameter by itself.

Chance comes from `random.Random.random` alone: of Python's generators it is the only one whose numbers never change.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from trainyard.api.sweep.space import Assignments, number_of, unit_of, value_at
from trainyard.api.sweep.trainingsweep import Parameter

STARTUP = 10
"""Trials before a density says anything."""
CANDIDATES = 64
GOOD_SHARE, MOST_GOOD = 0.2, 25
_STANDARD = NormalDist()


@dataclass(frozen=True)
class Told:
    """What has come of a trial: the lower the loss the better, infinite where it has failed."""

    assignments: Assignments
    loss: float


def suggest(parameters: Sequence[Parameter], told: Sequence[Told], *, seed: str) -> Assignments:
    """The values to try next, after these trials."""
    ranked = sorted(range(len(told)), key=lambda at: (told[at].loss, at))
    count = min(max(1, math.ceil(GOOD_SHARE * len(told))), MOST_GOOD)
    good = [told[at] for at in ranked[:count] if told[at].loss < math.inf]
    bad = [told[at] for at in ranked[count:]]
    chance = random.Random(f"tpe/{seed}")
    return {parameter.name: _best(parameter, good, bad, chance) for parameter in parameters}


def _best(parameter: Parameter, good: Sequence[Told], bad: Sequence[Told], chance: random.Random) -> object:
    name = parameter.name
    if parameter.choice is not None:
        options = parameter.choice.values
        shares = [_shares(options, [each.assignments[name] for each in part]) for part in (good, bad)]
        drawn = [_drawn(shares[0], chance.random()) for _ in range(CANDIDATES)]
        return options[max(drawn, key=lambda at: shares[0][at] / shares[1][at])]
    assert number_of(parameter) is not None
    likely, unlikely = (_Density([unit_of(parameter, each.assignments[name]) for each in part]) for part in (good, bad))
    points = [likely.draw(chance) for _ in range(CANDIDATES)]
    return value_at(parameter, max(points, key=lambda at: likely.log_of(at) - unlikely.log_of(at)))


def _shares(options: Sequence[object], taken: Sequence[object]) -> list[float]:
    """How likely each option is; as if each had been taken once between all besides."""
    counts = [1 / len(options) + sum(_same(each, option) for each in taken) for option in options]
    return [count / sum(counts) for count in counts]


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other  # True and 1 are two choices


def _drawn(shares: Sequence[float], at: float) -> int:
    for index, share in enumerate(shares):
        at -= share
        if at < 0:
            return index
    return len(shares) - 1


class _Density:
    """A mixture of normal distributions over [0, 1], each cut off there; the last one is the prior over all of it."""

    def __init__(self, points: Sequence[float]) -> None:
        centres = sorted(points)
        fence = [0.0, *centres, 1.0]
        narrowest = 1 / min(100, len(points) + 1)
        # As wide as the way to the farther neighbour: sharp where much was tried, broad where little was.
        widths = [
            min(max(fence[at] - fence[at - 1], fence[at + 1] - fence[at], narrowest), 1.0)
            for at in range(1, len(centres) + 1)
        ]
        self._parts = [NormalDist(c, w) for c, w in zip([*centres, 0.5], [*widths, 1.0], strict=True)]
        self._inside = [(part.cdf(0.0), part.cdf(1.0)) for part in self._parts]

    def draw(self, chance: random.Random) -> float:
        """A point of [0, 1]."""
        at = min(int(chance.random() * len(self._parts)), len(self._parts) - 1)
        low, high = self._inside[at]
        share = min(max(low + chance.random() * (high - low), 1e-12), 1 - 1e-12)
        part = self._parts[at]
        return min(max(part.mean + part.stdev * _STANDARD.inv_cdf(share), 0.0), 1.0)

    def log_of(self, point: float) -> float:
        """Logarithm of the density at a point."""
        total = sum(part.pdf(point) / (high - low) for part, (low, high) in zip(self._parts, self._inside, strict=True))
        return math.log(max(total / len(self._parts), 1e-300))
