"""`trainyard retry`: the spec of an ended run once more, as a new run that goes on where the other one was."""

import argparse

from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.exits import Refused
from trainyard.cli.printing import print_next
from trainyard.cli.successors import create_successor
from trainyard.client import Fate


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--from-scratch", action="store_true", help="Pass over the checkpoints, and train from the beginning."
    )
    parser.add_argument(
        "--name", dest="new_name", default="", metavar="NAME", help="The new run's name. Default: RUN-2 and so on."
    )
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Start an ended run again, as a new run, from its newest checkpoint.

    It has the same spec and the same volume. A spec that was wrong stays wrong: explain says what to change first.
    """
    runs, name = runs_of(options), name_of(options)
    run = runs.get(name)
    if not run.ended:
        raise Refused(f"{name} has not ended ({run.state}): it retries by itself, up to spec.backoffLimit")
    newest = run.status.get("checkpoint") or {}
    # A run that succeeded has nothing left to go on with.
    goes_on = bool(newest) and not options.from_scratch and run.fate is not Fate.SUCCEEDED
    new = create_successor(runs, run, resume_from=run.work_dir if goes_on else "", name=options.new_name)
    print(
        f"created {new.name}, which starts from "
        + (f"step {newest.get('step')} of {name}" if goes_on else "the beginning")
    )
    called, it = options.called_as, new.name + same_cluster(options)
    print_next(f"{called} watch {it}", f"{called} logs -f {it}", f"{called} status {it}")
