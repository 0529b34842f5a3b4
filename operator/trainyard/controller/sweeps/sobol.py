"""Sobol's sequence: points that fill the unit cube evenly, however many of them are taken. Pure.

Direction numbers are those of Joe and Kuo (2008, new-joe-kuo-6.21201). A seed shifts all points by a bit pattern of its own in each
dimension, which keeps how evenly they lie.
"""

import random
from functools import cache

BITS = 32
# Of each dimension from the second on: coefficients of its primitive polynomial (the inner ones, as bits), and its first numbers.
_DIRECTIONS = (
    (0, (1,)), (1, (1, 3)), (1, (1, 3, 1)), (2, (1, 1, 1)), (1, (1, 1, 3, 3)), (4, (1, 3, 5, 13)), (2, (1, 1, 5, 5, 17)),
    (4, (1, 1, 5, 5, 5)), (7, (1, 1, 7, 11, 19)), (11, (1, 1, 5, 1, 1)), (13, (1, 1, 1, 3, 11)), (14, (1, 3, 5, 5, 31)),
    (1, (1, 3, 3, 9, 7, 49)), (13, (1, 1, 1, 15, 21, 21)), (16, (1, 3, 1, 13, 27, 49)),
)  # fmt: skip
DIMENSIONS = len(_DIRECTIONS) + 1


def point(number: int, dimensions: int, *, seed: int) -> list[float]:
    """The point of this number (from 0), each coordinate in [0, 1)."""
    return [_coordinate(number, dimension, seed) for dimension in range(dimensions)]


def _coordinate(number: int, dimension: int, seed: int) -> float:
    shift = random.Random(f"sobol/{seed}/{dimension}").getrandbits(BITS)
    bits, gray = shift, number ^ (number >> 1)
    for place, direction in enumerate(_directions(dimension)):
        if gray >> place & 1:
            bits ^= direction
    return bits / float(1 << BITS)


@cache
def _directions(dimension: int) -> tuple[int, ...]:
    """Of each bit of a point's number, the bits that it turns over."""
    if dimension == 0:
        return tuple(1 << (BITS - 1 - place) for place in range(BITS))
    polynomial, first = _DIRECTIONS[dimension - 1]
    degree = len(first)
    found = [number << (BITS - 1 - place) for place, number in enumerate(first)]
    for place in range(degree, BITS):
        new = found[place - degree] ^ (found[place - degree] >> degree)
        for inner in range(1, degree):
            if polynomial >> (degree - 1 - inner) & 1:
                new ^= found[place - inner]
        found.append(new)
    return tuple(found)
