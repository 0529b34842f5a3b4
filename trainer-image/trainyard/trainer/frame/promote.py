"""The steps after the exports: aliases are moved last of all, and moved back where somebody asks for it.

A module of a target at which something points at the newest result has two functions besides `check` and `send`, both with the
target filled in and what its export has left, and both without effect when done again:

    promote(context: RunContext, export: Export, target: XTarget, exported: Exported) -> None
        lets the alias name this result, and remembers at the target what it named before
    back(context: RunContext, export: Export, target: XTarget, exported: Exported) -> None
        lets it name that again, unless it names another result than this by now
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainyard.api.run.exports import Export
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.exports import filled_target, module_of
from trainyard.trainer.exports.exported import Exported, digest_of, read_exported
from trainyard.trainer.frame.export import left_by, result_of
from trainyard.trainer.log import say


def promote(context: RunContext) -> None:
    """Let aliases name the result.

    Raises:
        UserError: a target refuses, or does not answer.
    """
    for export, target, exported in _promoted(context):
        module_of(export).promote(context, export, target, exported)
        say(f"export {export.name}: {exported.uri} is promoted")


def roll_back(context: RunContext) -> None:
    """Let them name what they named before, the last one first.

    Raises:
        UserError: a target refuses, or does not answer.
    """
    for export, target, exported in reversed([*_promoted(context)]):
        module_of(export).back(context, export, target, exported)
        say(f"export {export.name}: {exported.uri} is no longer promoted")


def _promoted(context: RunContext) -> Iterator[tuple[Export, Any, Exported]]:
    exports = [export for export in context.run.spec.all_exports() if export.promotes]
    if not exports:
        raise invalid_config("spec.exports has no target with an alias", hint="give one of them an alias")
    digest = digest_of(result_of(context))
    for export in exports:
        first = read_exported(context, export.depends_on[0]) if export.depends_on else None
        yield (
            export,
            filled_target(context, export, digest=digest, uri=first.uri if first else ""),
            left_by(context, export.name),
        )
