"""Where a result goes when it is there: one module a target, named like the target's field of the spec.

A module has two functions. `check(context, target)` is asked in the prepare step, so that a target that would refuse is known
before a GPU is taken; `export(context, target, reporter)` sends the committed result, last in the training step. Both raise
UserError, and sending twice does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from trainyard.api.run.exports import TARGETS
from trainyard.trainer.context import RunContext
from trainyard.trainer.reporter import Reporter


def check_targets(context: RunContext) -> None:
    """Ask each target whether it would take the result.

    Raises:
        UserError: one would not.
    """
    for module, target in _wanted(context):
        module.check(context, target)


def export_result(context: RunContext, reporter: Reporter) -> None:
    """Send the result to each target.

    Raises:
        UserError: one refuses, or does not answer.
    """
    for module, target in _wanted(context):
        module.export(context, target, reporter)


def _wanted(context: RunContext) -> Iterator[tuple[Any, Any]]:
    """What mode Debug makes is no result."""
    spec = context.run.spec
    for name in TARGETS if spec.mode == "Train" else ():
        if (target := getattr(spec, name)) is not None:
            yield import_module(f"{__name__}.{name}"), target
