"""What a training goes on from, and what it leaves: its newest checkpoint, its result, and the run's link to it."""

from __future__ import annotations

import os

from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.log import say, warn
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume import checkpoint
from trainyard.trainer.volume.checkpoint import Checkpoint
from trainyard.trainer.volume.commit import (
    TEMPORARY,
    Committed,
    digest_of,
    find_damage,
    read_committed,
    remove_leftovers,
)


def find_checkpoint(context: RunContext, data: Committed) -> Checkpoint | None:
    """The run's own newest checkpoint; at the very beginning the one that resumeFrom names; else none."""
    own = checkpoint.newest_valid(context.checkpoint_dir)
    if own is not None:
        manifest = read_committed(own.path)
        assert manifest is not None
        if manifest.manifest.get("data") != data.manifest["key"]:
            raise invalid_config(
                f"the checkpoints in {context.checkpoint_dir} were made on other data",
                hint="use another metadata.name, or delete that folder to start over",
            )
        say(f"going on from {own.path.name}")
        return own
    reference = context.run.spec.checkpoints.resume_from
    if not reference:
        return None
    inside = context.work_dir.relative_to(context.run_dir)
    other = checkpoint.find_other(reference, volume=context.volume, own=context.run_dir, inside=str(inside))
    say(f"going on from {other.path.relative_to(context.volume)} (spec.checkpoints.resumeFrom)")
    return other


def find_result(context: RunContext) -> Committed | None:
    """The committed outcome, if the run has got that far."""
    for folder in (context.work_dir, context.checkpoint_dir):
        remove_leftovers(folder)
    folder = context.model_dir if is_exported_whole(context) else context.adapter_dir
    result = read_committed(folder)
    if result is None:
        return None
    if (damage := find_damage(result, hashes=False)) is not None:
        warn(f"{folder.name}/ is damaged and made again: {damage}")
        return None
    return result


def is_exported_whole(context: RunContext) -> bool:
    """Whether the outcome is a model by itself, rather than an adapter alone."""
    return context.model.adapter is None or context.model.adapter.merge


def report_result(context: RunContext, result: Committed, reporter: Reporter) -> None:
    """The facts of a finished training."""
    hand_over(context)
    step = result.manifest.get("step")
    newest = checkpoint.listed(context.checkpoint_dir)
    reporter.report(
        step_number=step,
        total_steps=step,
        percentage=100.0,
        provenance={"modelDigest": digest_of(result)},
        checkpoint=newest[0].record(context.volume) if newest else None,
        milestone=True,
    )


def hand_over(phase: RunContext) -> None:
    """Make the last phase's model that of the run."""
    if not phase.is_last_phase:
        return
    link, target = phase.run_dir / "model", os.path.relpath(phase.model_dir, phase.run_dir)
    if link.is_symlink() and os.readlink(link) == target:
        return
    temporary = phase.run_dir / f"{TEMPORARY}model"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(link)
