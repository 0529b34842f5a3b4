"""Measured figures: printed where the test runs, and kept as JSON for the page that lists them."""

import json
import os
import time
from pathlib import Path
from typing import Any

from tests import ROOT

FOLDER = Path(os.environ.get("TRAINYARD_CLUSTER_DIR", ROOT / ".cluster")) / "measurements"


def record(name: str, **figures: Any) -> None:
    """Print the figures and append them to `.cluster/measurements/<name>.json`, one JSON object a line."""
    entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **figures}
    print(f"\nmeasured {name}: " + json.dumps(figures, default=str))
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.json").open("a") as file:
        file.write(json.dumps(entry, default=str) + "\n")


def spread(values: list[float]) -> dict[str, float]:
    """Median, maximum and number of some seconds."""
    ordered = sorted(values)
    return (
        {"n": len(ordered), "median": round(ordered[len(ordered) // 2], 2), "max": round(ordered[-1], 2)}
        if ordered
        else {}
    )
