"""Sobol's sequence against torch's, and how evenly its points lie."""

import pytest

from trainyard.controller.sweeps import sobol


@pytest.mark.slow
def test_unshifted_points_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Unshifted:
        def __init__(self, seed: str) -> None: ...
        def getrandbits(self, bits: int) -> int:
            return 0

    monkeypatch.setattr(sobol.random, "Random", Unshifted)
    theirs = torch.quasirandom.SobolEngine(sobol.DIMENSIONS).draw(256, dtype=torch.float64)
    ours = [sobol.point(number, sobol.DIMENSIONS, seed=0) for number in range(256)]
    assert torch.equal(torch.tensor(ours, dtype=torch.float64).double(), theirs)


@pytest.mark.parametrize("dimension", range(sobol.DIMENSIONS))
def test_each_sixteenth_of_a_dimension_gets_one_of_sixteen_points(dimension: int) -> None:
    for first in (0, 16, 32):
        points = [sobol.point(n, sobol.DIMENSIONS, seed=7)[dimension] for n in range(first, first + 16)]
        assert sorted(int(16 * point) for point in points) == list(range(16))


def test_another_seed_gives_other_points_and_the_same_seed_the_same() -> None:
    assert sobol.point(3, 4, seed=1) != sobol.point(3, 4, seed=2)
    assert sobol.point(3, 4, seed=1) == sobol.point(3, 4, seed=1)
    assert all(0 <= x < 1 for n in range(200) for x in sobol.point(n, 16, seed=3))
