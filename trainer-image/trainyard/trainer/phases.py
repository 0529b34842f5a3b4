"""From a run with phases to one of its phases: which spec it has, where it works, what it starts from.

    <run>/tokenizer/                         the one that all phases share
    <run>/start/                             which result of another run the first phase starts from, if any
    <run>/phases/<name>/data/ checkpoints/ model/
    <run>/model -> phases/<last>/model       the result of the run

The folder of a phase looks like that of a run, and its spec is that of a run (`trainyard.api.run.trainingrun.resolve`), so that
training and evaluation work on a phase as they would on a run of its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from trainyard.api.names import PHASES_DIR
from trainyard.api.run.trainingrun import phases_to_run, predecessor, resolve
from trainyard.api.steps import STEP_EVALUATE, STEP_EXPORT, STEP_PROMOTE, STEP_ROLLBACK, base_of, is_train
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.log import say
from trainyard.trainer.volume.commit import commit_folder, find_damage, read_committed

SHARED_TOKENIZER = "tokenizer"
START = "start"
_OF_THE_RESULT = (STEP_EVALUATE, STEP_EXPORT, STEP_PROMOTE, STEP_ROLLBACK)
"""Steps that are about the last phase."""


def in_phase(run: RunContext, name: str | None) -> RunContext:
    """The context of a phase; without a name that of the run, or where a step means one phase, that phase's.

    Raises:
        UserError: there is no such phase, or it lacks what it should start from.
    """
    order = phases_to_run(run.run.spec)
    if name is None and order and base_of(run.step) in _OF_THE_RESULT:
        name = order[-1]
    if name is None and not (order and is_train(run.step)):
        return run
    if name not in order:
        there = f"phases to run are {', '.join(order)}" if order else "the run has no phases"
        raise invalid_config(f"phase {name or 'none'}: {there}", hint="name one of spec.phases with --phase")
    start = _start_of(run, name)
    try:
        spec = resolve(run.run.spec, name, handed_on=start is not None)
    except ValidationError as error:
        raise invalid_config(
            f"phase {name} starts from the result of phase {predecessor(run.run.spec, name)}, and this volume has none",
            hint="run that phase first (spec.runPhases), with the same spec.storage.checkpoints.claimName",
        ) from error
    if start is not None and spec.model is not None:
        # A copy: the path need not look like an address that a user may write.
        spec = spec.model_copy(update={"model": spec.model.model_copy(update={"storage_uri": f"file://{start}"})})
    return replace(
        run,
        run=run.run.model_copy(update={"spec": spec}),
        phase=name,
        work_dir=run.work_dir / PHASES_DIR / name,
        is_last_phase=name == order[-1],
        shared_tokenizer=_tokenizer_key(run),
        longest=max(resolve(run.run.spec, p.name).training.max_length for p in run.run.spec.phases or ()),  # type: ignore[union-attr]
    )


def trainings(run: RunContext) -> list[RunContext]:
    """The phases that are to run, or the run itself where it has none."""
    if not run.run.spec.phases:
        return [run]
    settle_start(run)
    return [in_phase(run, name) for name in phases_to_run(run.run.spec)]


def whole_run(run: RunContext) -> RunContext:
    """The run with all of its datasets and without a method: each phase has its own, and records stay as they are."""
    without = {"phases": None, "training": None}
    return replace(run, run=run.run.model_copy(update={"spec": run.run.spec.model_copy(update=without)}))


def settle_start(run: RunContext) -> None:
    """Decide once and for all which result of another run the first phase starts from: the newest on the volume."""
    before = predecessor(run.run.spec, phases_to_run(run.run.spec)[0])
    if before is None or read_committed(run.work_dir / START) is not None:
        return
    found = [
        path
        for path in run.volume.glob(f"*/{PHASES_DIR}/{before}/model")
        if (result := read_committed(path)) is not None and find_damage(result, hashes=False) is None
    ]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    place = None if newest is None else newest.relative_to(run.volume).as_posix()
    commit_folder(run.work_dir / START, lambda folder: {"model": place})
    say(f"starting from {place}" if place else f"no result of phase {before} on this volume: starting from spec.model")


def _start_of(run: RunContext, name: str) -> Path | None:
    """Folder of the model that the phase goes on from; None where that is spec.model."""
    if name in phases_to_run(run.run.spec)[1:]:
        return run.work_dir / PHASES_DIR / str(predecessor(run.run.spec, name)) / "model"
    settled = read_committed(run.work_dir / START)
    place = settled.manifest.get("model") if settled else None
    return run.volume / place if place else None


def _tokenizer_key(run: RunContext) -> str:
    """What decides over the shared tokenizer: where it comes from, and if it is trained, on what."""
    first = _start_of(run, phases_to_run(run.run.spec)[0])
    source = None if first is not None or run.model.scratch is None else run.model.scratch.tokenizer
    basis: list[object] = [str(first or run.model.storage_uri) if source is None else source.model_dump()]
    if source is not None and source.train_vocab_size is not None:
        basis += [dataset.model_dump() for dataset in run.datasets]
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()
