"""What has to be the same for the same result, and when this process began."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainyard.api.names import GIT_COMMIT_LABEL
from trainyard.trainer import __version__
from trainyard.trainer.context import RunContext


def provenance(
    context: RunContext, *, libraries: Sequence[str], dataset: str, revision: str | None = None
) -> dict[str, Any]:
    """What has to be the same for the same result; `revision` is that of the model it starts from."""
    facts = {
        "trainerVersion": __version__,
        **{name: version(name) for name in libraries},
        "python": platform.python_version(),
        "seed": context.training.seed,
        "datasetDigest": dataset,
        "modelRevision": revision,
        "gitCommit": context.run.metadata.labels.get(GIT_COMMIT_LABEL),
    }
    return {name: value for name, value in facts.items() if value is not None}


def started_at() -> float:
    """When this process started, as seconds since the epoch."""
    if sys.platform == "linux":
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))
    return time.time()
