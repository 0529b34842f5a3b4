"""Makes the driver importable the way `python3 tests/cluster/cluster.py` does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cluster"))

from driver.settings import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A state folder of the test's own, with the folder that processes start in."""
    result = Paths(tmp_path)
    result.run.mkdir()
    return result
