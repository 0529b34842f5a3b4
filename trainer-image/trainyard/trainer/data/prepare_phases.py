"""The prepare step of a run with phases: one tokenizer for all of them, then the data of each.

All of it is done before the first phase trains, so that a fault in the data of the last one comes up while no GPU is held.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.build import build_records
from trainyard.trainer.data.prepare import make_tokenizer, note_datasets, prepare
from trainyard.trainer.data.records import Built, notes_of_places
from trainyard.trainer.log import say
from trainyard.trainer.phases import SHARED_TOKENIZER, trainings, whole_run
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import Committed, commit_folder, read_committed, read_made_from


def prepare_all(context: RunContext, reporter: Reporter) -> None:
    """The run's data, or that of all its phases."""
    spec = context.run.spec
    (prepare_phases if spec.phases and spec.mode != "Dataset" else prepare)(context, reporter)


def prepare_phases(context: RunContext, reporter: Reporter) -> None:
    """The tokenizer that all phases share, then the data of each phase that is to run, each committed by itself."""
    phases = trainings(context)
    make_shared_tokenizer(context, phases[0])
    for phase in phases:
        say(f"phase {phase.phase}:")
        prepare(phase, reporter)
    note_datasets([made for phase in phases if (made := read_committed(phase.data_dir)) is not None], reporter)


def make_shared_tokenizer(context: RunContext, first: RunContext) -> Committed:
    """One tokenizer for all phases, in the run's folder: that of the model the first one starts from, or one trained on the
    text of all phases, also of those that this run leaves out, so that they can go on from its result."""
    folder, key = context.run_dir / SHARED_TOKENIZER, first.shared_tokenizer
    if (present := read_made_from(folder, key)) is not None:
        return present

    def write(to: Path) -> None:
        records = to / "records"
        make_tokenizer(first, to, lambda: all_records(context, records))
        shutil.rmtree(records, ignore_errors=True)

    return commit_folder(folder, write, key=key)


def all_records(context: RunContext, folder: Path) -> Built:
    """The records of all phases together, in a folder that is made."""
    (folder / "staging").mkdir(parents=True)
    built = Built(folder, build_records(whole_run(context), folder, folder / "staging"))
    shutil.rmtree(notes_of_places(context), ignore_errors=True)
    return built
