"""What is told about a result wherever it goes, beside its files: whose it is, on which data, and how good.

The same of the same run, whenever and how often it is sent, and never an address of data: that may be nobody's business.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from trainyard.api.names import GIT_COMMIT_LABEL
from trainyard.api.run.versioning import values_of
from trainyard.trainer.context import RunContext
from trainyard.trainer.volume.commit import MANIFEST, Committed, read_committed


def result_of(context: RunContext) -> Committed | None:
    """The committed model, or the adapter where that is all there is."""
    return read_committed(context.model_dir) or read_committed(context.adapter_dir)


def facts_of(context: RunContext) -> dict[str, Any]:
    """Flat; only what is known."""
    run, result = context.run, result_of(context)
    # Without a cluster nobody has noted when the run was created; the result's own time stays the same.
    moment = datetime.fromtimestamp((result.path / MANIFEST).stat().st_mtime, UTC) if result else context.moment
    named = values_of(metadata=run.metadata, spec=run.spec, moment=moment)
    base = context.model.storage_uri or ""
    known = {
        "run": run.metadata.name,
        "namespace": run.metadata.namespace,
        "uid": context.uid,
        "model": named["model"],
        "version": named["version"],
        "method": context.training.method,
        "baseModel": base if base.startswith("hf://") else None,
        "dataset": result.manifest.get("data") if result else None,
        "step": result.manifest.get("step") if result else None,
        "gitCommit": run.metadata.labels.get(GIT_COMMIT_LABEL),
    }
    return {name: value for name, value in known.items() if value not in (None, "")}


def metrics_of(context: RunContext) -> dict[str, float]:
    """What the evaluation has measured of this very result; nothing where it has not."""
    measured, result = read_committed(context.evaluation_dir), result_of(context)
    if measured is None or result is None:
        return {}
    if measured.manifest.get("subject", {}).get("model") != result.manifest["files"]:
        return {}
    try:
        metrics = json.loads((measured.path / "metrics.json").read_text()).get("metrics", {})
    except (OSError, ValueError, AttributeError):
        return {}
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
