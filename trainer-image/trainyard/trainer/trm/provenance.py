"""What has to be the same for the same result."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from trainyard.trainer import __version__
from trainyard.trainer.context import RunContext


def provenance(context: RunContext) -> dict[str, Any]:
    """What has to be the same for the same result."""
    return {
        "trainerVersion": __version__,
        "torch": version("torch"),
        "python": platform.python_version(),
        "seed": context.training.seed,
    }
