"""An export step, around what each target does by itself.

    the result, what earlier exports have left  ->  sent already?  ->  the target's `send`  ->  <run>/exports/<name>.json

The record is committed after the target has confirmed that it has everything, so a step that is killed before that sends again
(which does no harm), and one that is killed after it only tells what stands there.
"""

from __future__ import annotations

import time

from trainyard.api.run.exports import Export
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config, storage
from trainyard.trainer.exports import filled_target, module_of
from trainyard.trainer.exports.exported import Exported, digest_of, read_exported, write_exported
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import Committed
from trainyard.trainer.volume.result import find_result


def export(context: RunContext, reporter: Reporter, *, name: str) -> None:
    """Do one export of the run. Does nothing if it has been done with this very result.

    Raises:
        UserError: there is no result, or the target does not take it.
    """
    one = export_named(context, name)
    result = result_of(context)
    digest = digest_of(result)
    inputs = {before: left_by(context, before) for before in one.depends_on}
    uri = inputs[one.depends_on[0]].uri if inputs else ""
    target = filled_target(context, one, digest=digest, uri=uri)
    subject = {
        "result": digest,
        "target": {one.kind: target.model_dump(mode="json", by_alias=True, exclude_none=True)},
        "inputs": {before: exported.digest for before, exported in inputs.items()},
    }
    exported = read_exported(context, name, subject=subject)
    if exported is not None:
        say(f"export {name}: this result has been sent already: {exported.uri}")
    else:
        reporter.report(phase="export", percentage=0.0)
        started = time.monotonic()
        exported = module_of(one).send(context, one, target, inputs, reporter)
        write_exported(context, name, exported, subject=subject)
        say(f"export {name}: {exported.uri} after {time.monotonic() - started:.1f} s")
    reporter.report(
        export={"uri": exported.uri, "digest": exported.digest, "version": exported.version or None},
        percentage=100.0,
        milestone=True,
    )


def export_named(context: RunContext, name: str) -> Export:
    """The export of this name.

    Raises:
        UserError: there is none, or the operator does it.
    """
    exports = {one.name: one for one in context.run.spec.all_exports() if not one.row.by_operator}
    if name not in exports:
        there = f"there are {', '.join(exports)}" if exports else "the run has none"
        raise invalid_config(f"export {name}: {there}", hint="name one of spec.exports with --name")
    return exports[name]


def result_of(context: RunContext) -> Committed:
    """The committed model, or the adapter where that is all there is.

    Raises:
        UserError: there is none.
    """
    result = find_result(context)
    if result is None:
        raise storage(f"there is no trained model in {context.model_dir}", hint="run the train step first")
    return result


def left_by(context: RunContext, name: str) -> Exported:
    """What an export before has left.

    Raises:
        UserError: nothing.
    """
    exported = read_exported(context, name)
    if exported is None:
        raise storage(f"export {name} has left no record in {context.run_dir}/exports", hint="run that export first")
    return exported
