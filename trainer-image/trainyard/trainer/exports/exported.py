"""What an export has left, as a value, and the record of it beside the run's result.

    <run>/exports/<name>/        files that the export has made, committed; only of targets that make files
    <run>/exports/<name>.json    the record: what was sent from which result, and where it is

The record is written last. Where it is there and speaks of the same result and the same fields, nothing is left to be done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.volume.commit import digest_of as digest_of
from trainyard.trainer.volume.commit import write_durably

FOLDER = "exports"


@dataclass(frozen=True)
class Exported:
    """Where the result is now. `digest` is over its content: `sha256:` and 64 digits, or what the target itself calls it."""

    uri: str
    digest: str
    version: str = ""
    files: tuple[str, ...] = ()
    """Of a target that makes files: their names in the export's folder."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What `promote`, `back` and later exports need to know besides."""


def files_dir(context: RunContext, name: str) -> Path:
    """Where an export commits the files that it makes."""
    return context.run_dir / FOLDER / name


def read_exported(context: RunContext, name: str, *, subject: Mapping[str, Any] | None = None) -> Exported | None:
    """What the export of this name has left; with `subject` only if it was made of that."""
    try:
        known = json.loads(_record(context, name).read_text())
        if subject is not None and known["subject"] != subject:
            return None
        return Exported(**known["exported"] | {"files": tuple(known["exported"]["files"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_exported(context: RunContext, name: str, exported: Exported, *, subject: Mapping[str, Any]) -> None:
    """Leave it for the next attempt, and for those that come after it."""
    path = _record(context, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, json.dumps({"subject": subject, "exported": asdict(exported)}, indent=1))


def _record(context: RunContext, name: str) -> Path:
    return context.run_dir / FOLDER / f"{name}.json"
