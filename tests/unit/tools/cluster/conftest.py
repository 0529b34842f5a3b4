"""What tests of the local cluster's driver share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.settings import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A state folder of the test's own, with the folder that processes start in."""
    result = Paths(tmp_path)
    result.run.mkdir()
    return result
