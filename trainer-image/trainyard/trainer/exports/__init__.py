"""Where a result goes when it is there: one module a target, named like the target's field of an export.

A module has two functions:

    check(context: RunContext, export: Export, target: XTarget) -> None
        asked in the prepare step, so that a target that would refuse is known before a GPU is taken
    send(context: RunContext, export: Export, target: XTarget, inputs: Mapping[str, Exported], reporter: Reporter) -> Exported
        sends the committed result; `inputs` is what the exports named in dependsOn have left, by name

Both get the target with its placeholders filled in, and raise UserError. Sending twice does no harm. A target at which something
points at the newest result has two more, see `frame/promote.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from trainyard.api.run.exports import Export
from trainyard.api.run.placeholders import filled
from trainyard.api.run.versioning import values_of
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.volume.commit import read_committed


def check_targets(context: RunContext) -> None:
    """Ask each target whether it would take the result.

    Raises:
        UserError: one would not.
    """
    for export in context.run.spec.all_exports():
        if not export.row.by_operator:
            module_of(export).check(context, export, filled_target(context, export))


def module_of(export: Export) -> Any:
    """The module that serves its target; imported by this, because some bring a library along."""
    return import_module(f"{__name__}.{export.kind}")


def filled_target(context: RunContext, export: Export, *, digest: str | None = None, uri: str = "") -> Any:
    """The target with its placeholders filled in; `digest` and `uri` are known once there is a result.

    Raises:
        UserError: a text cannot be what it has become.
    """
    run = context.run
    values = values_of(metadata=run.metadata, spec=run.spec, moment=_moment(context), digest=digest, uri=uri)
    try:
        return filled(export.target, values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise invalid_config(
            f"{export.field}.{place} is {first['input']!r} with its placeholders filled in: {first['msg']}",
            hint="shorten the text, or correct what its placeholders stand for (spec.owner, spec.versioning)",
        ) from error


def _moment(context: RunContext) -> datetime | None:
    """Without a cluster nobody has noted when the run was created; the result's own time stays the same."""
    for folder in (context.model_dir, context.adapter_dir):
        if read_committed(folder) is not None:
            return datetime.fromtimestamp((folder / "manifest.json").stat().st_mtime, UTC)
    return None
